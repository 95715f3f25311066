"""``qhk sweep cancel``: ends a sweep's runs."""

from __future__ import annotations

from qhk.cli.command import LightCommand, LightJob
from qhk.cli.sweep_request import RunsRequest


def run(job: LightJob[RunsRequest]) -> int:
    """Return 0 once everything that was asked for is cancelled, 1 where some runs cannot be reached."""
    from qhk.sweep.commands import cancel

    request = job.request
    return cancel(request.folder(job.positionals[0]), cell=request.cell, seed=request.only_seed)


COMMAND = LightCommand(
    sentence="Cancels a sweep's runs that wait or run; running ones write a checkpoint first.",
    positionals="NAME",
    recipes=(
        ("all of it", "qhk sweep cancel modules"),
        ("one cell", "qhk sweep cancel modules cell=without_perception"),
        ("one run", "qhk sweep cancel modules cell=full only_seed=2"),
    ),
    request=RunsRequest,
    run=run,
)
