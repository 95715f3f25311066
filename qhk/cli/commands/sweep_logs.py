"""``qhk sweep logs``: the end of the logs of a sweep's runs."""

from __future__ import annotations

from pathlib import Path

from qhk.cli.command import LightCommand, LightJob
from qhk.settings.base import Count, Node, NumOrZero, Text
from qhk.settings.inputs import PathsSettings


class LogsRequest(Node):
    """``lines`` of each log's end, of one cell, of one seed; null for both means what did not end well."""

    paths: PathsSettings
    cell: Text | None
    only_seed: NumOrZero | None
    lines: Count


def run(job: LightJob[LogsRequest]) -> int:
    """Return 0 after printing the logs."""
    from qhk.sweep.commands import logs
    from qhk.sweep.manifest import find_sweep

    request = job.request
    folder = find_sweep(Path(request.paths.outputs), job.positionals[0])
    return logs(folder, cell=request.cell, seed=request.only_seed, num_lines=request.lines)


COMMAND = LightCommand(
    sentence="Prints the end of the logs of a sweep's runs.",
    positionals="NAME",
    recipes=(
        ("of those that did not end well", "qhk sweep logs modules"),
        ("of one cell", "qhk sweep logs modules cell=full"),
        ("more of one run", "qhk sweep logs modules cell=full only_seed=0 lines=200"),
    ),
    request=LogsRequest,
    run=run,
)
