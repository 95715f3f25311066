"""A sweep whose cells are drawn round by round with Optuna from what earlier trials reached.

The state of a search is its list of trials with their results. The sampler is made anew for every round, so a
search goes on after any interruption, and draws the same values from the same results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qhk.errors import UserError
from qhk.settings.base import Scalar
from qhk.settings.sweep import ChoiceSettings, RangeSettings, SearchSettings
from qhk.sweep.manifest import MANIFEST_FILE, SweepRun, read_manifest
from qhk.sweep.plan import SweepPlan, override_text, plan_trials, refuse_changed
from qhk.sweep.states import RunView, read_states
from qhk.tracking.recorder import read_metrics
from qhk.tracking.status import RunState

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Drawn values by key, and what they reached: None while it is not known, NaN where the runs failed."""

    name: str
    values: Mapping[str, Scalar]
    reached: float | None


def next_round(plan: SweepPlan, folder: Path) -> SweepPlan:
    """Return the plan with the runs of the next round, none once all trials were drawn.

    ``folder`` is the sweep's, which may not be there yet. Raises UserError without Optuna, and where the
    trials on disk differ from those to come in more than their drawn values.
    """
    assert plan.search is not None
    before = read_trials(plan.search, folder)
    for trial in before[:1]:
        refuse_changed(read_manifest(folder), plan_trials(plan, {trial.name: trial.values}).runs)
    drawn = draw_round(plan.search, before)
    return plan_trials(plan, {trial.name: trial.values for trial in drawn})


def read_trials(search: SearchSettings, folder: Path) -> list[Trial]:
    """Return the trials on disk. A trial reached the best of the metric in each run, averaged over seeds."""
    if not (folder / MANIFEST_FILE).exists():
        return []
    by_cell: dict[str, list[RunView]] = {}
    for view in read_states(read_manifest(folder)):
        by_cell.setdefault(view.run.cell, []).append(view)
    return [
        Trial(name=cell, values=_values(search, views[0].run), reached=_reached(search, views))
        for cell, views in by_cell.items()
    ]


def draw_round(search: SearchSettings, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the next round, at most ``search.parallel``; none after ``search.trials``.

    Raises UserError without Optuna.
    """
    try:
        import optuna
        from optuna.trial import TrialState, create_trial
    except ImportError:
        raise UserError("sweep.search: needs Optuna; pip install 'qhk[search]'") from None
    count = min(search.parallel, search.trials - len(trials))
    if count <= 0:
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: distribution(entry) for key, entry in search.space.items()}
    # The randomness of a round is a function of the search's seed and of the trials before.
    seed = search.seed * 1_000_003 + len(trials)
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if search.method == "random"
        else optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in trials:
        state, value = TrialState.COMPLETE, trial.reached
        if value is None:
            state = TrialState.RUNNING
        elif math.isnan(value):
            state, value = TrialState.FAIL, None
        study.add_trial(
            create_trial(state=state, params=dict(trial.values), distributions=dict(space), value=value)
        )
    return [
        Trial(name=f"trial_{number:03d}", values=dict(study.ask(space).params), reached=None)
        for number in range(len(trials), len(trials) + count)
    ]


def distribution(entry: ChoiceSettings | RangeSettings) -> BaseDistribution:
    """Return the values that a searched key may take, as Optuna's distribution."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(entry, ChoiceSettings):
        return CategoricalDistribution(entry.choices)
    if entry.whole:
        return IntDistribution(math.ceil(entry.low), math.floor(entry.high), log=entry.log)
    return FloatDistribution(entry.low, entry.high, log=entry.log)


def _values(search: SearchSettings, run: SweepRun) -> dict[str, Scalar]:
    """Return the drawn values, from the overrides that they became.

    Raises UserError where the space has changed, so that they cannot have been drawn from it.
    """
    drawn = dict(change.split("=", 1) for change in run.changes)
    if drawn.keys() != search.space.keys():
        raise UserError(
            f"sweep.search.space: {run.label} on disk was drawn from {', '.join(drawn)}, which is another "
            f"space than {', '.join(search.space)}; choose another study=NAME or fresh=true"
        )
    return {key: _value(key, search.space[key], text, run) for key, text in drawn.items()}


def _value(key: str, entry: ChoiceSettings | RangeSettings, text: str, run: SweepRun) -> Scalar:
    """Return a drawn value from its text. Raises UserError where the space no longer has it."""
    fitting: list[Scalar] = []
    if isinstance(entry, ChoiceSettings):
        fitting = [choice for choice in entry.choices if override_text(choice) == text]
    else:
        with suppress(ValueError):
            number = int(text) if entry.whole else float(text)
            fitting = [number] if entry.low <= number <= entry.high else []
    if not fitting:
        raise UserError(
            f"sweep.search.space.{key}: lacks {text}, which {run.label} on disk was drawn with; "
            "choose another study=NAME or fresh=true"
        )
    return fitting[0]


def _reached(search: SearchSettings, views: Sequence[RunView]) -> float | None:
    unfinished = [view for view in views if view.state is not RunState.DONE]
    if unfinished:
        return None if any(view.active for view in unfinished) else math.nan
    return math.fsum(_best(search.metric, view.run.directory) for view in views) / len(views)


def _best(metric: str, directory: Path) -> float:
    rows = read_metrics(directory / "metrics.jsonl")
    values = [row.metrics[metric] for row in rows if metric in row.metrics]
    return max((value for value in values if math.isfinite(value)), default=math.nan)
