"""Tables of a sweep: cells x seeds with their states, what went wrong, and means over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group

from qhk.sweep.manifest import Manifest
from qhk.sweep.means import METRICS, CellMeans, SweepMeans, sweep_means
from qhk.sweep.states import RunView
from qhk.tables import Table, Text
from qhk.tracking.code import SHOWN, code_text, read_code_parts
from qhk.tracking.status import RunState

WIDTH = 160
STYLES = {
    RunState.PENDING: "dim",
    RunState.RUNNING: "cyan",
    RunState.PREEMPTED: "yellow",
    RunState.CANCELLED: "magenta",
    RunState.DONE: "green",
    RunState.FAILED: "bold red",
}


def status_view(manifest: Manifest, views: Sequence[RunView]) -> Group:
    """Return the whole status: table, a line for each run that stopped or is of several codes, and means."""
    title = Text(f"sweep {manifest.name}   {count_line(views)}")
    parts: list[Table | Text] = [title, status_table(manifest, views)]
    parts += [Text(line) for line in search_lines(manifest, active=any(view.active for view in views))]
    unreachable = dict.fromkeys(view.unreachable for view in views if view.unreachable)
    parts += [Text(f"{line}; states from heartbeats alone", style="bold yellow") for line in unreachable]
    well = (RunState.DONE, RunState.RUNNING)
    parts += [stopped_line(manifest, view) for view in views if view.cause and view.state not in well]
    parts += [
        Text(f"{view.run.label} {view.status.warning}", style="yellow")
        for view in views
        if view.status is not None and view.status.warning
    ]
    parts += [Text(line, style="yellow") for line in code_lines(views)]
    means = sweep_means(manifest, views)
    if any(cell.n for cell in means.cells):
        parts.append(means_table(means))
    parts += [Text(line, style="yellow") for line in means.left_out]
    return Group(*parts)


def table_console() -> Console:
    """Return a console as wide as the terminal, or wide enough for names and paths where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def count_line(views: Sequence[RunView]) -> str:
    """``12 done, 2 running, 1 failed``, in the order of a run's life."""
    counts = {state: sum(view.state is state for view in views) for state in RunState}
    return ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)


def status_table(manifest: Manifest, views: Sequence[RunView]) -> Table:
    """Return the states, one row per cell, one column per seed."""
    by_place = {(view.run.cell, view.run.seed): view for view in views}
    table = Table()
    table.add_column("cell", overflow="fold")
    for seed in manifest.seeds:
        table.add_column(f"seed {seed}", overflow="fold")
    for cell in manifest.cells:
        row = [by_place.get((cell, seed)) for seed in manifest.seeds]
        table.add_row(cell, *(Text("") if view is None else cell_text(view) for view in row))
    return table


def cell_text(view: RunView) -> Text:
    """Return one run in few words: ``running 40/300  SRCC 0.512  ETA 3 min``."""
    words = [view.state.value]
    status = view.status
    if status is not None and view.state is not RunState.DONE and status.step:
        words.append(f"{status.step}/{status.total_steps or '?'}")
    if status is not None and status.srcc is not None and math.isfinite(status.srcc):
        words.append(f"SRCC {status.srcc:.3f}")
    if view.eta_s is not None:
        words.append(f"ETA {duration_text(view.eta_s)}")
    if view.run.same_as:
        words.append(f"(= {view.run.same_as})")
    return Text("  ".join(words), style=STYLES[view.state])


def stopped_line(manifest: Manifest, view: RunView) -> Text:
    """``without_perception/seed1 failed: step 12: loss is NaN   outputs/.../console.log``."""
    log = next((log for log in (view.run.log, *job_logs(manifest, view)) if log.exists()), None)
    place = "" if log is None else f"   {log}"
    job = f" (job {view.job})" if view.job else ""
    return Text(f"{view.run.label} {view.state.value}{job}: {view.cause}{place}", style=STYLES[view.state])


def job_logs(manifest: Manifest, view: RunView) -> list[Path]:
    """Return the error logs of a run's SLURM job, written before the run begins; none on a machine."""
    return sorted((manifest.folder / "submitit").glob(f"{view.job}_*_log.err")) if view.job else []


def search_lines(manifest: Manifest, *, active: bool) -> list[str]:
    """Return a line on a search that has trials left to draw, and what starts its next round."""
    if manifest.search is None or not manifest.trials_left:
        return []
    drawn = f"search: {len(manifest.cells)} of {manifest.search.trials} trials drawn"
    when = "once these have ended, " if active else ""
    wait = "" if manifest.launcher.form == "local" else " (hydra.launcher.wait=true goes on by itself)"
    return [f"{drawn}; {when}qhk sweep resume {manifest.name} starts the next round{wait}"]


def code_lines(views: Sequence[RunView]) -> list[str]:
    """Return a line for each run that was computed by several codes, and one where runs differ in theirs.

    Runs that take rewards from different modules of the user's are not compared.
    """
    lines, found = [], dict[tuple[str, ...], dict[str, list[str]]]()
    for view in views:
        codes = read_code_parts(view.run.directory)
        if not codes or view.run.same_as:
            continue
        if len(codes) > 1:
            lines.append(f"{view.run.label} is of more than one code: {code_text(codes)}")
        found.setdefault(view.run.modules, {}).setdefault(codes[-1].code[:SHOWN], []).append(view.run.label)
    for by_code in found.values():
        if len(by_code) > 1:
            groups = "; ".join(f"{code}: {', '.join(labels)}" for code, labels in by_code.items())
            lines.append(f"cells that are compared ended with different code: {groups}")
    return lines


def duration_text(seconds: float) -> str:
    """Return ``40 s``, ``12 min``, ``3.5 h``, ``2.1 d`` or ``3.2 years``; ``under 1 s`` for less."""
    for size, unit in ((365.25 * 86400, "years"), (86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            decimals = 1 if size >= 3600 and seconds < 10 * size else 0
            return f"{seconds / size:.{decimals}f} {unit}"
    return "under 1 s"


def means_table(means: SweepMeans) -> Table:
    """Return the means as a table; ``n`` says how many of the seeds are in them."""
    count = f"{means.num_used} of {means.num_measured} " if means.num_used < means.num_measured else ""
    title = (
        f"mean over {count}benchmarks: before → after training, mean over seeds ± standard deviation of the "
        "latter"
    )
    table = Table(title=title, title_justify="left")
    shown = {
        name: heading for name, heading in METRICS.items() if any(name in cell.after for cell in means.cells)
    }
    for heading in ("cell", "n", *shown.values()):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for cell in means.cells:
        table.add_row(cell.cell, f"{cell.n}/{cell.num_seeds}", *(_change(cell, name) for name in shown))
    return table


def _change(cell: CellMeans, name: str) -> str:
    if name not in cell.after:
        return "-"
    decimals = 1 if name == "distinct_samples" else 3
    before = f"{cell.before[name]:.{decimals}f} → " if name in cell.before else ""
    spread = f" ± {cell.stds[name]:.{decimals}f}" if math.isfinite(cell.stds[name]) else ""
    return f"{before}{cell.after[name]:.{decimals}f}{spread}"


def exit_code(manifest: Manifest, views: Sequence[RunView]) -> int:
    """Return 0: all done; 1: something failed; 3: nothing failed, but runs or trials are left."""
    if any(view.state is RunState.FAILED for view in views):
        return 1
    return 0 if all(view.state is RunState.DONE for view in views) and not manifest.trials_left else 3
