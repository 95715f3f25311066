"""A sweep whose cells are drawn round by round: which round comes next, and what the earlier ones reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qhk.cli.sweep_plan import SweepPlan, cell_runs, override_text, search_cells
from qhk.config.catalogue import Catalogue
from qhk.errors import UserError
from qhk.settings.base import Scalar
from qhk.settings.sweep import ChoiceSettings, SearchSettings
from qhk.sweep.manifest import SweepRun, read_manifest
from qhk.sweep.state import RunView, look
from qhk.tracking.recorder import read_metrics
from qhk.tracking.status import RunState


def next_round(plan: SweepPlan, folder: Path, catalogue: Catalogue) -> SweepPlan:
    """The plan with the runs of the next round, none once all trials were drawn; ``folder`` may be missing.

    Raises ValueError without Optuna.
    """
    assert plan.search is not None
    try:
        from qhk.sweep.search import Trial, draw_round
    except ImportError:
        raise UserError("sweep.search: needs Optuna; pip install 'qhk[search]'") from None
    there = read_trials(plan.search, folder)
    drawn = draw_round(
        plan.search,
        [Trial(name=name, values=values, reached=reached) for name, (values, reached) in there.items()],
    )
    cells = search_cells(plan.words, plan.name, {trial.name: dict(trial.values) for trial in drawn})
    return replace(plan, runs=tuple(run for cell in cells for run in cell_runs(cell, plan.seeds, catalogue)))


def read_trials(search: SearchSettings, folder: Path) -> dict[str, tuple[dict[str, Scalar], float | None]]:
    """Name -> drawn values and what they reached: the best of the metric in each run, the mean over seeds.

    None where that is not known yet, NaN where a run failed.
    """
    if not (folder / "sweep.json").exists():
        return {}
    by_cell: dict[str, list[RunView]] = {}
    for view in look(read_manifest(folder)):
        by_cell.setdefault(view.run.cell, []).append(view)
    return {cell: (_values(search, views[0].run), _reached(search, views)) for cell, views in by_cell.items()}


def _values(search: SearchSettings, run: SweepRun) -> dict[str, Scalar]:
    """The drawn values, from the overrides that they became."""
    found: dict[str, Scalar] = {}
    for change in run.changes:
        key, _, text = change.partition("=")
        entry = search.space[key]
        if isinstance(entry, ChoiceSettings):
            found[key] = next(choice for choice in entry.choices if override_text(choice) == text)
        else:
            found[key] = int(text) if entry.whole else float(text)
    return found


def _reached(search: SearchSettings, views: Sequence[RunView]) -> float | None:
    if any(view.state is not RunState.DONE and view.active for view in views):
        return None
    if any(view.state is not RunState.DONE for view in views):
        return math.nan
    return math.fsum(_best(search.metric, view.run.directory) for view in views) / len(views)


def _best(metric: str, directory: Path) -> float:
    rows = read_metrics(directory / "metrics.jsonl")
    values = [row.metrics[metric] for row in rows if metric in row.metrics]
    return max((value for value in values if math.isfinite(value)), default=math.nan)
