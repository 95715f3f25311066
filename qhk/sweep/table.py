"""A sweep for the reader: the table of cells x seeds, what went wrong, and means over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from qhk.evaluation.results import Stage, read_results, summarise
from qhk.sweep.manifest import Manifest
from qhk.sweep.state import RunView
from qhk.tracking.status import RunState

METRICS = ("srcc", "plcc")
WIDTH = 160
STYLES = {
    RunState.PENDING: "dim",
    RunState.RUNNING: "cyan",
    RunState.PREEMPTED: "yellow",
    RunState.CANCELLED: "magenta",
    RunState.DONE: "green",
    RunState.FAILED: "bold red",
}


@dataclass(frozen=True, kw_only=True)
class CellMeans:
    """Means and (unbiased) standard deviations by metric over a cell's seeds: ``n`` of ``num_seeds`` runs."""

    cell: str
    num_seeds: int
    n: int
    means: dict[str, float]
    stds: dict[str, float]


def status_view(manifest: Manifest, views: Sequence[RunView]) -> Group:
    """The whole status: table, one line for each run that stopped, and the means as far as they go."""
    title = Text(f"sweep {manifest.name}   {count_line(views)}")
    parts: list[Table | Text] = [title, status_table(manifest, views)]
    parts += [stopped_line(view) for view in views if view.cause and view.state not in QUIET]
    means = cell_means(manifest, views)
    if any(cell.n for cell in means):
        parts.append(means_table(means))
    return Group(*parts)


QUIET = (RunState.DONE, RunState.RUNNING)


def table_console() -> Console:
    """Where tables go: as wide as the terminal, wide enough for names and paths where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def count_line(views: Sequence[RunView]) -> str:
    """``12 done, 2 running, 1 failed``, in the order of a run's life."""
    counts = {state: sum(view.state is state for view in views) for state in RunState}
    return ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)


def status_table(manifest: Manifest, views: Sequence[RunView]) -> Table:
    """One row per cell, one column per seed."""
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
    """One run in few words: ``running 40/300  SRCC 0.512  ETA 3 min``."""
    words = [view.state.value]
    status = view.status
    if status is not None and view.state is not RunState.DONE and status.step:
        words.append(f"{status.step}/{status.total_steps or '?'}")
    if status is not None and status.srcc is not None:
        words.append(f"SRCC {status.srcc:.3f}")
    if view.eta_s is not None:
        words.append(f"ETA {duration(view.eta_s)}")
    if view.run.same_as:
        words.append(f"(= {view.run.same_as})")
    return Text("  ".join(words), style=STYLES[view.state])


def stopped_line(view: RunView) -> Text:
    """``without_perception/seed1 failed: step 12: loss is NaN   outputs/.../console.log``."""
    place = f"   {view.run.log}" if view.run.log.exists() else ""
    job = f" (job {view.job})" if view.job else ""
    return Text(f"{view.run.label} {view.state.value}{job}: {view.cause}{place}", style=STYLES[view.state])


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 d``."""
    for size, unit in ((86400.0, "d"), (3600.0, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def cell_means(manifest: Manifest, views: Sequence[RunView]) -> list[CellMeans]:
    """Each cell's means over its seeds. Only runs that are done and have a value count: never a failed one.

    A run's value is the mean over its benchmarks of the headline read-out after training; benchmarks that
    were read too seldom, or without a correlation, are left out of it, and a run with none is left out here.
    """
    found = []
    for cell in manifest.cells:
        runs = [view for view in views if view.run.cell == cell]
        values = [run_values(manifest, view) for view in runs if view.state is RunState.DONE]
        kept = [value for value in values if all(map(math.isfinite, value.values()))]
        found.append(
            CellMeans(
                cell=cell,
                num_seeds=len(runs),
                n=len(kept),
                means={name: _mean([value[name] for value in kept]) for name in METRICS},
                stds={name: _std([value[name] for value in kept]) for name in METRICS},
            )
        )
    return found


def run_values(manifest: Manifest, view: RunView) -> dict[str, float]:
    """A finished run's headline means over its benchmarks, NaN where no benchmark counts."""
    results = view.run.directory / "results.json"
    if not results.exists():
        return dict.fromkeys(METRICS, math.nan)
    evaluation = manifest.settings(view.run).evaluation
    rows = [
        row
        for row in read_results(results).rows
        if row.readout == evaluation.headline and row.stage in (Stage.AFTER, Stage.CONTROL)
    ]
    last = max((row.step for row in rows), default=0)
    summary = summarise(
        [row for row in rows if row.step == last], min_parsed_fraction=evaluation.min_parsed_fraction
    )
    return {name: summary.means.get(name, math.nan) for name in METRICS}


def means_table(means: Sequence[CellMeans]) -> Table:
    """The means as a table; ``n`` says how many of the seeds are in them."""
    table = Table(title="means over benchmarks, then mean ± standard deviation over seeds")
    for heading in ("cell", "n", *(name.upper() for name in METRICS)):
        table.add_column(heading, justify="left" if heading == "cell" else "right")
    for cell in means:
        values = [_with_spread(cell.means[name], cell.stds[name]) for name in METRICS]
        table.add_row(cell.cell, f"{cell.n}/{cell.num_seeds}", *values)
    return table


def _with_spread(mean: float, std: float) -> str:
    if not math.isfinite(mean):
        return "-"
    return f"{mean:.3f}" if not math.isfinite(std) else f"{mean:.3f} ± {std:.3f}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def exit_code(views: Sequence[RunView]) -> int:
    """0: all done; 1: something failed; 3: nothing failed, but not all is done."""
    if any(view.state is RunState.FAILED for view in views):
        return 1
    return 0 if all(view.state is RunState.DONE for view in views) else 3
