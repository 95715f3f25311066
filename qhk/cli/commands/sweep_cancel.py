"""``qhk sweep cancel``: ends a sweep's runs."""

from __future__ import annotations

from pathlib import Path

from qhk.cli.command import LightCommand, LightJob
from qhk.settings.base import Node, NumOrZero, Text
from qhk.settings.inputs import PathsSettings


class CancelRequest(Node):
    """Which runs of a sweep: of one cell, of one seed; null means all."""

    paths: PathsSettings
    cell: Text | None
    only_seed: NumOrZero | None


def run(job: LightJob[CancelRequest]) -> int:
    """Return 0 once everything that was asked for is cancelled, 1 where some runs cannot be reached."""
    from qhk.sweep.commands import cancel
    from qhk.sweep.manifest import find_sweep

    request = job.request
    folder = find_sweep(Path(request.paths.outputs), job.positionals[0])
    return cancel(folder, cell=request.cell, seed=request.only_seed)


COMMAND = LightCommand(
    sentence="Cancels a sweep's runs that wait or run; running ones write a checkpoint first.",
    positionals="NAME",
    recipes=(
        ("all of it", "qhk sweep cancel modules"),
        ("one cell", "qhk sweep cancel modules cell=without_perception"),
        ("one run", "qhk sweep cancel modules cell=full only_seed=2"),
    ),
    request=CancelRequest,
    run=run,
)
