"""``qhk sweep status``: what a sweep's folder says of its runs."""

from __future__ import annotations

from qhk.cli.command import LightCommand, LightJob
from qhk.cli.sweep_request import SweepRequest
from qhk.settings.base import Positive


class StatusRequest(SweepRequest):
    """``watch`` shows the table live, every ``interval_s`` seconds, until nothing is active any more."""

    watch: bool
    interval_s: Positive


def run(job: LightJob[StatusRequest]) -> int:
    """Return 0 where all is done, 1 where something failed, 3 where neither."""
    from qhk.sweep.commands import status

    request = job.request
    return status(request.folder(job.positionals[0]), watch=request.watch, interval_s=request.interval_s)


COMMAND = LightCommand(
    sentence="Shows a sweep's cells x seeds, why runs stopped, and means over seeds.",
    positionals="NAME",
    recipes=(
        ("once", "qhk sweep status modules"),
        ("until nothing is active any more", "qhk sweep status modules watch=true"),
        ("from another directory", "qhk sweep status modules paths.outputs=/shared/outputs"),
    ),
    request=StatusRequest,
    run=run,
)
