"""Tables of a sweep: cells x seeds with their states, what went wrong, and means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group

from qhk.evaluation.results import Moment, ResultRow, read_results, summarise
from qhk.sweep.manifest import Manifest
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


METRICS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "accuracy": "accuracy",
    "distinct_samples": "distinct samples",
    "score_entropy": "score entropy",
}
"""What the table of means shows, where a sweep has it, and its heading."""


@dataclass(frozen=True, kw_only=True)
class CellMeans:
    """A cell's means over its seeds by metric, before and after training: of ``n`` of ``num_seeds`` runs.

    ``before`` is empty where nothing was measured then; ``stds`` are the unbiased standard deviations of
    ``after``. A metric that the cell's tasks do not have is absent.
    """

    cell: str
    num_seeds: int
    n: int
    before: dict[str, float]
    after: dict[str, float]
    stds: dict[str, float]


def status_view(manifest: Manifest, views: Sequence[RunView]) -> Group:
    """Return the whole status: table, a line for each run that stopped or is of several codes, and means."""
    title = Text(f"sweep {manifest.name}   {count_line(views)}")
    parts: list[Table | Text] = [title, status_table(manifest, views)]
    parts += [Text(line) for line in search_lines(manifest, active=any(view.active for view in views))]
    unreachable = dict.fromkeys(view.unreachable for view in views if view.unreachable)
    parts += [Text(f"{line}; states from heartbeats alone", style="bold yellow") for line in unreachable]
    well = (RunState.DONE, RunState.RUNNING)
    parts += [stopped_line(manifest, view) for view in views if view.cause and view.state not in well]
    parts += [Text(line, style="yellow") for line in code_lines(views)]
    means = cell_means(manifest, views)
    if any(cell.n for cell in means):
        parts.append(means_table(means))
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
    if status is not None and status.srcc is not None:
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
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    for size, unit in ((86400.0, "d"), (3600.0, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def cell_means(manifest: Manifest, views: Sequence[RunView]) -> list[CellMeans]:
    """Return each cell's means over its seeds; only runs that are done and have values count.

    A run's value is the mean over its benchmarks of the headline read-out, without those where too few
    answers were parsed or there is no correlation.
    """
    found = []
    for cell in manifest.cells:
        runs = [view for view in views if view.run.cell == cell]
        values = [run_values(manifest, view) for view in runs if view.state is RunState.DONE]
        kept = [(before, after) for before, after in values if after and _finite(after)]
        names = [name for name in METRICS if all(name in after for _, after in kept)] if kept else []
        started = [before for before, _ in kept if all(name in before for name in names) and _finite(before)]
        found.append(
            CellMeans(
                cell=cell,
                num_seeds=len(runs),
                n=len(kept),
                before={name: _mean([one[name] for one in started]) for name in names if started},
                after={name: _mean([after[name] for _, after in kept]) for name in names},
                stds={name: _std([after[name] for _, after in kept]) for name in names},
            )
        )
    return found


def run_values(manifest: Manifest, view: RunView) -> tuple[dict[str, float], dict[str, float]]:
    """Return a finished run's headline means over its benchmarks, before and after training.

    Both are empty for a run that measured nothing.
    """
    results = view.run.directory / "results.json"
    if not results.exists():
        return {}, {}
    evaluation = manifest.settings(view.run).evaluation
    rows = [row for row in read_results(results).rows if row.readout == evaluation.headline]
    before = _latest([row for row in rows if row.moment is Moment.BEFORE])
    after = _latest([row for row in rows if row.moment in (Moment.AFTER, Moment.CONTROL)])
    first, last = (
        summarise(part, min_parsed_fraction=evaluation.min_parsed_fraction).means for part in (before, after)
    )
    return _of_interest(first), _of_interest(last)


def _of_interest(means: Mapping[str, float]) -> dict[str, float]:
    return {name: means[name] for name in METRICS if name in means}


def _latest(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return each benchmark's row of the last step: a run in stages measures each at its stage's end."""
    return list({row.benchmark: row for row in sorted(rows, key=lambda row: row.step)}.values())


def means_table(means: Sequence[CellMeans]) -> Table:
    """Return the means as a table; ``n`` says how many of the seeds are in them."""
    title = (
        "mean over benchmarks: before → after training, mean over seeds ± standard deviation of the latter"
    )
    table = Table(title=title, title_justify="left")
    shown = {name: heading for name, heading in METRICS.items() if any(name in cell.after for cell in means)}
    for heading in ("cell", "n", *shown.values()):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for cell in means:
        table.add_row(cell.cell, f"{cell.n}/{cell.num_seeds}", *(_change(cell, name) for name in shown))
    return table


def _change(cell: CellMeans, name: str) -> str:
    if name not in cell.after:
        return "-"
    decimals = 1 if name == "distinct_samples" else 3
    before = f"{cell.before[name]:.{decimals}f} → " if name in cell.before else ""
    spread = f" ± {cell.stds[name]:.{decimals}f}" if math.isfinite(cell.stds[name]) else ""
    return f"{before}{cell.after[name]:.{decimals}f}{spread}"


def _finite(values: dict[str, float]) -> bool:
    return all(map(math.isfinite, values.values()))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def exit_code(manifest: Manifest, views: Sequence[RunView]) -> int:
    """Return 0: all done; 1: something failed; 3: nothing failed, but runs or trials are left."""
    if any(view.state is RunState.FAILED for view in views):
        return 1
    return 0 if all(view.state is RunState.DONE for view in views) and not manifest.trials_left else 3
