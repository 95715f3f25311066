"""``qhk sweep logs``: the end of the logs of a sweep's runs."""

from __future__ import annotations

from qhk.cli.command import LightCommand, LightJob
from qhk.cli.sweep_request import RunsRequest
from qhk.settings.base import Count


class LogsRequest(RunsRequest):
    """``lines`` of each log's end, of one cell, of one seed; null for both means what did not end well."""

    lines: Count


def run(job: LightJob[LogsRequest]) -> int:
    """Return 0 after printing the logs."""
    from qhk.sweep.commands import logs

    request = job.request
    return logs(
        request.folder(job.positionals[0]), cell=request.cell, seed=request.only_seed, num_lines=request.lines
    )


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
