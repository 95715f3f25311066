"""A report in W&B: its files as an artifact of an offline run, and a workspace of the runs in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qhk.files import write_atomically
from qhk.report.runs import read_runs
from qhk.report.workspace import Place, build_workspace, workspace_spec
from qhk.tracking import wandb_offline
from qhk.tracking.mirror import Ending, MirrorContent, MirrorRun
from qhk.tracking.status import RunState
from qhk.tracking.wandb_run import has_account


def mirror_report(paths: Sequence[Path], place: Place, written: Sequence[Path], *, title: str) -> list[str]:
    """Write the workspace beside the page, and an offline run with the report; return what became of each.

    The workspace is saved in W&B where an account is logged in. The report stays here until its offline run
    is uploaded by the command that is returned.
    """
    page = written[0]
    workspace = build_workspace(read_runs(*paths), place, title=title)
    spec = page.with_suffix(".workspace.json")
    write_atomically(spec, json.dumps(workspace_spec(workspace), indent=1) + "\n")
    run = MirrorRun(
        project=place.project,
        entity=place.entity,
        group=title,
        name=f"report {title}",
        job_type="report",
        run_id=f"report-{hashlib.sha256(title.encode()).hexdigest()[:12]}",
        tags=("report",),
        notes=None,
        config={},
        directory=page.parent,
        outputs=page.parent,
        metrics=page.parent / "metrics.jsonl",
    )
    files = MirrorContent(artifacts={"report": {path.name: path for path in written}})
    lines = [str(spec), wandb_offline.rebuild(run, files, Ending(state=RunState.DONE, cause=""))]
    return [*lines, _save(workspace)]


def _save(workspace: Any) -> str:
    if not has_account():
        return "the workspace is not in W&B yet: run `wandb login`, then this command again"
    try:
        saved = workspace.save()
    except Exception as error:
        return f"the workspace could not be saved in W&B ({' '.join(str(error).split())})"
    return f"W&B workspace: {saved.url}"
