"""Draws the next values of a search from what earlier trials reached, with Optuna.

The state of a search is its list of trials with their results: the sampler is made anew for every round, so a
search goes on after any interruption, and draws the same again from the same results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from qhk.settings.base import Scalar
from qhk.settings.sweep import ChoiceSettings, RangeSettings, SearchSettings


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Drawn values by key, and what they reached: None while it is not known, NaN where the runs failed."""

    name: str
    values: Mapping[str, Scalar]
    reached: float | None


def draw_round(search: SearchSettings, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the next round, at most ``search.parallel``; none once there are ``search.trials``."""
    count = min(search.parallel, search.trials - len(trials))
    if count <= 0:
        return []
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {key: distribution(entry) for key, entry in search.space.items()}
    study = optuna.create_study(direction="maximize", sampler=_sampler(search, len(trials)))
    for trial in trials:
        study.add_trial(_told(trial, space))
    drawn = []
    for number in range(len(trials), len(trials) + count):
        asked = study.ask(space)
        drawn.append(Trial(name=f"trial_{number:03d}", values=dict(asked.params), reached=None))
    return drawn


def distribution(entry: ChoiceSettings | RangeSettings) -> BaseDistribution:
    """The values that a searched key may take."""
    if isinstance(entry, ChoiceSettings):
        return CategoricalDistribution(entry.choices)
    if entry.whole:
        return IntDistribution(math.ceil(entry.low), math.floor(entry.high), log=entry.log)
    return FloatDistribution(entry.low, entry.high, log=entry.log)


def _sampler(search: SearchSettings, num_before: int) -> BaseSampler:
    """A sampler whose randomness is a function of the search's seed and of the trials before."""
    seed = search.seed * 1_000_003 + num_before
    if search.method == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _told(trial: Trial, space: Mapping[str, BaseDistribution]) -> optuna.trial.FrozenTrial:
    state, value = TrialState.COMPLETE, trial.reached
    if value is None:
        state = TrialState.RUNNING
    elif math.isnan(value):
        state, value = TrialState.FAIL, None
    return create_trial(state=state, params=dict(trial.values), distributions=dict(space), value=value)
