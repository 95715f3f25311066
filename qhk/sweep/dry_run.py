"""A sweep that is only printed: its cells, which of them exist already, and an estimate of their cost."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

from qhk.plain import print
from qhk.policy.shape import ANSWER_TOKENS
from qhk.settings.root import Settings
from qhk.settings.sweep import LocalLauncherSettings, MachineSettings
from qhk.sweep.cost import estimate_run
from qhk.sweep.launch import missing_in
from qhk.sweep.manifest import sweep_folder
from qhk.sweep.plan import PlannedRun, SweepPlan
from qhk.sweep.search import next_round
from qhk.sweep.sharing import Task, share_plan
from qhk.sweep.table import duration_text, table_console
from qhk.tables import Table
from qhk.tracking.status import RunState


def print_sweep(plan: SweepPlan, task: Task, problems: Callable[[Settings], list[str]]) -> int:
    """Print the table of cells and the estimate; nothing is written but the cache of data.

    ``problems`` says why a run would be refused. Returns 0, or 2 where a run on this machine would be; jobs
    of a cluster may see other disks, so there the lines are warnings.
    """
    if plan.search is not None:
        search = plan.search
        plan = next_round(plan, sweep_folder(plan.outputs, plan.name).absolute())
        print(f"{search.method} search of {search.trials} trials; the next round:")
    runs = share_plan(plan, task)
    lines, here = missing_in(runs, problems), isinstance(plan.launcher, LocalLauncherSettings)
    for line in lines:
        print(f"{'error' if here else 'warning'}: {line}", file=sys.stderr)
    console = table_console()
    print(f"sweep {plan.name}: {len({run.cell for run in runs})} cells, {len(runs)} runs")
    console.print(cells_table(runs))
    print("\n".join(cost_lines(plan.launcher.machine, runs)))
    if lines and here:
        print(f"dry run: runs would be refused, for {len(lines)} reasons; nothing was started")
        return 2
    print("dry run: the settings of every cell are valid; nothing was started")
    return 0


def cost_lines(machine: MachineSettings, runs: Sequence[PlannedRun]) -> list[str]:
    """Return what the runs that are still to be computed will cost, in all and by cell.

    Where answers may be longer than is assumed, the cost of answers as long as their limits is said, too.
    """
    by_cell, limits, total, most = dict[str, str](), set[int](), 0.0, 0.0
    for run in runs:
        if run.state is RunState.DONE or run.same_as:
            continue
        hours = estimate_run(run.settings, machine)
        longest = estimate_run(run.settings, machine, answer_tokens=math.inf)
        if hours is None or longest is None:
            return [f"no estimate of cost: the size of {run.settings.model.path} is not known"]
        whole = math.fsum(hours.values())
        total, most = total + whole, most + math.fsum(longest.values())
        limits.add(run.settings.rollout.max_new_tokens)
        parts = ", ".join(f"{name} {duration_text(3600 * part)}" for name, part in hours.items() if part)
        by_cell[run.cell] = f"  {run.cell}: {duration_text(3600 * whole)} a run ({parts})"
    if not limits:
        return ["nothing is left to compute"]
    lengths = sorted({min(limit, ANSWER_TOKENS) for limit in limits})
    answers = f"answers of {' to '.join(map(str, lengths[:: max(1, len(lengths) - 1)]))} tokens"
    if max(limits) > ANSWER_TOKENS:
        answers += f"; {duration_text(3600 * most)} where all are as long as allowed ({max(limits)} tokens)"
    return [
        f"estimate, not measured: {duration_text(3600 * total)} of one {machine.name} in all; a roofline at "
        f"{machine.efficiency:.0%} of the peaks of one {machine.name}, {answers}",
        *by_cell.values(),
    ]


def cells_table(runs: Sequence[PlannedRun]) -> Table:
    """Return one row per run: what its cell changes, its id, and its present state."""
    table = Table()
    for heading in ("cell", "seed", "run id", "changes", "now"):
        table.add_column(heading, overflow="fold")
    for run in runs:
        state = "new" if run.state is None else run.state.value
        now = f"{state}, same as {run.same_as}" if run.same_as else state
        table.add_row(run.cell, str(run.seed), run.run_id, " ".join(run.changes) or "-", now)
    return table
