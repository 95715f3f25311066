"""What a sweep would be: its cells, which of them are there already, and an estimate of their cost."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from qhk.cli.sweep_launch import package_folder
from qhk.cli.sweep_plan import SweepPlan
from qhk.sweep.plan import PlannedRun, existing_runs, share_runs
from qhk.tracking.provenance import code_digest


def print_sweep(plan: SweepPlan) -> int:
    """0, after the table of cells and the estimate; nothing is written."""
    package = package_folder()
    code = code_digest({package.name: package})
    runs = share_runs(plan.runs, known=existing_runs(plan.outputs), code=code, fresh=plan.fresh)
    console = Console(highlight=False)
    console.print(f"sweep {plan.name}: {len({run.cell for run in runs})} cells, {len(runs)} runs")
    console.print(cells_table(runs))
    print("dry run: the settings of every cell are valid; nothing was started")
    return 0


def cells_table(runs: list[PlannedRun]) -> Table:
    """One row per run: what its cell changes, its id, and what is there of it."""
    table = Table()
    for heading in ("cell", "seed", "run id", "changes", "now"):
        table.add_column(heading, overflow="fold")
    for run in runs:
        changes = " ".join(run.changes) or "-"
        table.add_row(run.cell, str(run.seed), run.run_id, changes, what_is_there(run))
    return table


def what_is_there(run: PlannedRun) -> str:
    """``new``, the state an earlier launch left, or the run that it is the same as."""
    state = "new" if run.state is None else run.state.value
    return f"{state}, same as {run.same_as}" if run.same_as else state
