"""A search draws from its results alone: again the same, and better where it may look."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from qhk.errors import UserError
from qhk.settings.sweep import ChoiceSettings, RangeSettings, SearchSettings
from qhk.sweep.manifest import write_manifest
from qhk.sweep.search import Trial, draw_round, read_trials
from tests.sweep.builders import MakeSweep


def search(method: str = "bayesian", *, trials: int = 40, parallel: int = 4) -> SearchSettings:
    return SearchSettings(
        method=method,  # type: ignore[arg-type]
        trials=trials,
        parallel=parallel,
        seed=0,
        metric="validation/srcc",
        space={
            "optimizer.lr": RangeSettings(low=1e-6, high=1e-2, log=True, whole=False),
            "rollout.group_size": RangeSettings(low=2.0, high=16.0, log=False, whole=True),
            "uncertainty.form": ChoiceSettings(choices=["linear", "rank"]),
        },
    )


def reach(trial: Trial) -> float:
    """Best at lr 1e-4 and form rank."""
    miss = abs(math.log10(float(trial.values["optimizer.lr"] or 0)) + 4)
    return -miss - (trial.values["uncertainty.form"] != "rank")


def run(settings: SearchSettings) -> list[Trial]:
    trials: list[Trial] = []
    while drawn := draw_round(settings, trials):
        trials += [replace(trial, reached=reach(trial)) for trial in drawn]
    return trials


@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_rounds_fill_up_to_the_number_of_trials_within_the_space(method: str) -> None:
    trials = run(search(method, trials=10, parallel=4))
    assert [trial.name for trial in trials] == [f"trial_{number:03d}" for number in range(10)]
    for trial in trials:
        lr, group = trial.values["optimizer.lr"], trial.values["rollout.group_size"]
        assert isinstance(lr, float) and 1e-6 <= lr <= 1e-2
        assert isinstance(group, int) and 2 <= group <= 16
    assert len({trial.values["optimizer.lr"] for trial in trials}) == 10


def test_the_same_results_draw_the_same_values() -> None:
    first = run(search(trials=12))
    assert run(search(trials=12)) == first
    later = draw_round(search(trials=16), first)
    assert later == draw_round(search(trials=16), first)
    worse = [replace(trial, reached=-(trial.reached or 0)) for trial in first]
    assert draw_round(search(trials=16), worse) != later


def test_looking_beats_not_looking() -> None:
    def late(method: str) -> float:
        return sum(trial.reached or 0 for trial in run(search(method))[20:])

    assert late("bayesian") > late("random")


def test_failed_and_unknown_trials_are_told_apart() -> None:
    first = draw_round(search(), [])
    told = [replace(first[0], reached=math.nan), *first[1:]]
    assert len(draw_round(search(), told)) == 4


@pytest.mark.parametrize(
    ("space", "fault"),
    [
        (
            {"optimizer.lr": RangeSettings(low=1e-4, high=1e-2, log=True, whole=False)},
            "lr: lacks 1e-05",
        ),
        ({"optimizer.lr": RangeSettings(low=0, high=1, log=False, whole=True)}, "lr: lacks 1e-05"),
        ({"optimizer.lr": ChoiceSettings(choices=[1e-3, 1e-2])}, "lacks 1e-05, which trial_000/seed0"),
        (
            {"optimizer.eps": ChoiceSettings(choices=[1e-3, 1e-2])},
            "drawn from optimizer.lr, which",
        ),
        ({"optimizer.lr": ChoiceSettings(choices=[1e-5, 1e-2])}, ""),
    ],
)
def test_trials_that_another_space_has_drawn_are_refused(
    space: dict[str, ChoiceSettings | RangeSettings], fault: str, make_sweep: MakeSweep
) -> None:
    manifest = make_sweep("trial_000")
    drawn = replace(manifest, runs=(replace(manifest.runs[0], changes=("optimizer.lr=1e-05",)),))
    write_manifest(drawn)
    asked = search().model_copy(update={"space": space})
    if fault:
        with pytest.raises(UserError, match=re.escape(fault)):
            read_trials(asked, manifest.folder)
    else:
        assert [trial.values for trial in read_trials(asked, manifest.folder)] == [{"optimizer.lr": 1e-5}]
