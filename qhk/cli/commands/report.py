"""``qhk report``: one HTML file that compares runs, or the same page kept up to date on loopback."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field

from qhk.cli.command import LightCommand, LightJob
from qhk.errors import UserError
from qhk.plain import print
from qhk.settings.base import Node, Text
from qhk.settings.paths import PathsSettings


class ReportRequest(Node):
    """What is reported, how it is tested, and where the files go."""

    paths: PathsSettings
    title: Text | None
    output: Text | None
    reference: Text | None
    resamples: Annotated[int, Field(ge=0, le=100_000)]
    thumbnails: bool
    wandb_workspace: Text | None
    watch: bool
    port: Annotated[int, Field(ge=0, le=65535)]


def run(job: LightJob[ReportRequest]) -> int:
    """Return 0 after the files are written, or after Ctrl-C. Raises UserError for a path without runs."""
    from qhk.report.content import ReportOptions
    from qhk.report.files import find_paths, write_report
    from qhk.report.workspace import wanted_place
    from qhk.training.display import ConsoleDisplay

    request = job.request
    outputs = Path(request.paths.outputs)
    paths = find_paths(job.positionals, outputs)
    title = request.title or " and ".join(path.resolve().name for path in paths)
    options = ReportOptions(
        title=title,
        reference=request.reference,
        num_resamples=request.resamples,
        confidence=0.95,
        thumbnails=request.thumbnails,
    )
    place = None if request.wandb_workspace is None else wanted_place(request.wandb_workspace)
    if request.watch and place is not None:
        raise UserError("wandb_workspace: has no effect with watch=true; leave one of them out")
    if request.watch:
        if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
            raise UserError("watch=true needs the extra review; install it: pip install 'qhk[review]'")
        from qhk.report.watch import watch

        watch(paths, options, port=request.port)
        return 0
    page = outputs / "reports" / f"{re.sub(r'[^A-Za-z0-9._+-]+', '_', title)}.html"
    if request.output is not None:
        page = Path(request.output)
    if page.suffix != ".html":
        raise UserError(f"output={page}: the page is an HTML file; give it the ending .html")
    with ConsoleDisplay().task("reporting") as progress:
        written = write_report(paths, options, page, progress=lambda what, done, of: progress(done, of))
    for path in written:
        print(path)
    if place is not None:
        from qhk.report.mirror import mirror_report

        for line in mirror_report(paths, place, written, title=title):
            print(line)
    return 0


COMMAND = LightCommand(
    sentence="Compares runs: tables with intervals and tests, curves, images, in one HTML file.",
    positionals="RUNS...",
    recipes=(
        ("a sweep by its name, or a study, or single runs", "qhk report modules"),
        ("against a method", "qhk report outputs/default reference=grpo_baseline"),
        ("kept up to date in the browser", "qhk report modules watch=true"),
        ("and as a W&B workspace", "qhk report modules wandb_workspace=ENTITY/PROJECT"),
    ),
    request=ReportRequest,
    run=run,
)
