"""``qhk runs list``: every run below some folders, with where it stands and what it measured."""

from __future__ import annotations

from pathlib import Path

from qhk.cli.command import LightCommand, LightJob
from qhk.settings.base import Node
from qhk.settings.paths import PathsSettings


class RunsRequest(Node):
    """Where sweeps lie that are given by name: below ``paths.outputs``."""

    paths: PathsSettings


def run(job: LightJob[RunsRequest]) -> int:
    """Return 0 after the list is printed. Raises UserError for a path without runs."""
    from qhk.report.files import find_paths
    from qhk.report.runs import read_runs
    from qhk.report.terminal import list_table
    from qhk.sweep.table import table_console

    paths = find_paths(job.positionals, Path(job.request.paths.outputs))
    table_console().print(list_table(read_runs(*paths)))
    return 0


COMMAND = LightCommand(
    sentence="Lists runs with their states and mean SRCC before and after.",
    positionals="RUNS...",
    recipes=(
        ("everything", "qhk runs list outputs"),
        ("a study", "qhk runs list outputs/default"),
        ("a sweep by its name", "qhk runs list modules"),
    ),
    request=RunsRequest,
    run=run,
)
