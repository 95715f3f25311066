"""trackio: a board of all runs below one ``outputs``, on this machine alone, in ``<outputs>/trackio``."""

from __future__ import annotations

import math
import shlex
from typing import Any

from qhk.tracking.mirror import (
    CollapseAlerts,
    Ending,
    MirrorContent,
    MirrorRun,
    column_rows,
    read_request,
    rebuild_in_child,
)
from qhk.tracking.recorder import read_metrics
from qhk.tracking.status import RunState


def rebuild(run: MirrorRun, content: MirrorContent, ending: Ending) -> str:
    """Replace the run of this name in trackio's database; return the command that shows the board.

    Files are not copied into it. Raises ``RuntimeError`` where that fails.
    """
    board = run.outputs.resolve() / "trackio"
    offline = {"TRACKIO_DIR": str(board), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    rebuild_in_child("qhk.tracking.trackio_mirror", run, content, ending, environment=offline)
    return f"trackio: TRACKIO_DIR={shlex.quote(str(board))} trackio show --project {shlex.quote(run.project)}"


def _write(run: MirrorRun, content: MirrorContent, ending: Ending) -> None:
    """Write the run. Runs in the child process."""
    import pandas as pd
    import trackio

    rows, name = read_metrics(run.metrics), f"{run.group}/{run.name}"
    about = {"notes": run.notes, "tags": list(run.tags), "job_type": run.job_type, **run.config}
    summary = {key: value for key, value in content.summary.items() if math.isfinite(value)}
    live: Any = trackio.init(
        project=run.project,
        name=name,
        group=run.group,
        config={**about, "summary": summary},
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    alerts = CollapseAlerts()
    for row in rows:
        trackio.log({key: value for key, value in row.metrics.items() if math.isfinite(value)}, step=row.step)
        if text := alerts.text(row.step, row.metrics):
            trackio.alert(title=alerts.TITLE, text=text)
    last = max((row.step for row in rows), default=0)
    for title, table in content.tables.items():
        trackio.log({title: trackio.Table(dataframe=pd.DataFrame(column_rows(table)))}, step=last)
    if ending.state is not RunState.DONE:
        trackio.alert(title=f"run {ending.state.value}", text=ending.cause)
    live.finish()
    for old in trackio.Api().runs(run.project):
        if old.name == name and old.id != live.id:
            old.delete()


if __name__ == "__main__":
    _write(*read_request())
