"""What a sweep would be: its cells, which of them are there already, and an estimate of their cost."""

from __future__ import annotations

import sys

from rich.table import Table

from qhk.cli.sweep_check import missing_in, share_plan
from qhk.cli.sweep_plan import SweepPlan
from qhk.config.catalogue import Catalogue
from qhk.sweep.cost import ANSWER_TOKENS, estimate_run
from qhk.sweep.manifest import sweep_folder
from qhk.sweep.plan import PlannedRun
from qhk.sweep.table import duration, table_console
from qhk.tracking.status import RunState


def print_sweep(plan: SweepPlan, catalogue: Catalogue) -> int:
    """0, after the table of cells and the estimate; nothing is written but the cache of data."""
    if plan.search is not None:
        from qhk.cli.sweep_search import next_round

        told = f"{plan.search.method} search of {plan.search.trials} trials"
        plan = next_round(plan, sweep_folder(plan.outputs, plan.name).absolute(), catalogue)
        print(f"{told}; the next round:")
    runs = share_plan(plan)
    for line in missing_in(runs):
        print(f"warning: {line}", file=sys.stderr)
    console = table_console()
    console.print(f"sweep {plan.name}: {len({run.cell for run in runs})} cells, {len(runs)} runs")
    console.print(cells_table(runs))
    for line in cost_lines(plan, runs):
        print(line)
    print("dry run: the settings of every cell are valid; nothing was started")
    return 0


def cost_lines(plan: SweepPlan, runs: list[PlannedRun]) -> list[str]:
    """What the runs that are still to be computed will cost, by cell and in all."""
    machine, by_cell, total = plan.launcher.machine, dict[str, str](), 0.0
    for run in runs:
        if run.state is RunState.DONE or run.same_as:
            continue
        estimate = estimate_run(run.settings, machine)
        if estimate is None:
            return [f"no estimate of cost: the size of {run.settings.model.path} is not known"]
        total += estimate.total_h
        parts = ", ".join(
            f"{name} {duration(3600 * hours)}" for name, hours in estimate.hours.items() if hours
        )
        by_cell[run.cell] = f"  {run.cell}: {duration(3600 * estimate.total_h)} a run ({parts})"
    share = f"{machine.efficiency:.0%} of the peaks of one {machine.name}"
    return [
        f"estimate, not measured: {duration(3600 * total)} of one {machine.name} in all; "
        f"a roofline at {share}, answers of at most {ANSWER_TOKENS} tokens",
        *by_cell.values(),
    ]


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
