"""``qhk runs compare``: methods x benchmarks with intervals and tests, and what their settings differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from qhk.cli.command import LightCommand, LightJob
from qhk.plain import plain_text
from qhk.settings.base import Node, Text
from qhk.settings.paths import PathsSettings


class CompareRequest(Node):
    """Which metric of which moment and read-out is compared, against which method."""

    paths: PathsSettings
    metric: Text
    moment: Literal["before", "after"]
    readout: Text | None
    reference: Text | None
    resamples: Annotated[int, Field(ge=0, le=100_000)]


def run(job: LightJob[CompareRequest]) -> int:
    """Return 0 after the tables are printed. Raises UserError for what is not there."""
    from qhk.report.compare import compare
    from qhk.report.files import find_paths
    from qhk.report.modules import compare_modules
    from qhk.report.runs import read_runs
    from qhk.report.terminal import changes_table, comparison_table, field_table
    from qhk.report.views import choose_view
    from qhk.sweep.table import table_console

    request = job.request
    runs = read_runs(*find_paths(job.positionals, Path(request.paths.outputs)))
    view = choose_view(runs, metric=request.metric, moment=request.moment, readout=request.readout)
    table, scored = compare(runs, view, reference=request.reference, num_resamples=request.resamples)
    console = table_console()
    console.print(comparison_table(table))
    if len(table.methods) == 2:
        console.print(field_table(table))
    found = compare_modules(view, scored)
    for sentence in [] if found is None else found[1]:
        console.print(plain_text(sentence), markup=False)
    console.print(changes_table(runs, table.reference))
    return 0


COMMAND = LightCommand(
    sentence="Compares methods in the terminal: means, intervals, tests, and the settings that differ.",
    positionals="RUNS...",
    recipes=(
        ("two runs", "qhk runs compare outputs/default/a outputs/default/b"),
        ("a sweep by its name, against a cell", "qhk runs compare modules reference=grpo_baseline"),
        ("another metric", "qhk runs compare modules metric=plcc"),
    ),
    request=CompareRequest,
    run=run,
)
