"""Effects of modules: known effects come back, with intervals; what runs cannot tell is named."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from qhk.statistics.comparison import BenchmarkScores, Estimate
from qhk.statistics.effects import Effect, Run, effect_sentence, module_effects

REFERENCES = {"uncertainty": "none", "perception": "none"}


def factorial(seeds: int) -> list[Run]:
    return [
        Run(seed=seed, levels={"uncertainty": u, "perception": p})
        for seed in range(seeds)
        for u, p in itertools.product(("none", "linear"), ("none", "kl"))
    ]


def benchmark(value: np.ndarray, *, image_sd: float = 0.0) -> BenchmarkScores:
    redrawn = value[:, None] + np.random.default_rng(7).normal(0, image_sd, (len(value), 400))
    return BenchmarkScores(value=value, redrawn=redrawn, num_clusters=100)


def effects_of(runs: list[Run], *scores: BenchmarkScores, interactions: bool = True):
    return module_effects(runs, scores, references=REFERENCES, interactions=interactions, confidence=0.95)


def test_known_effects_and_their_interaction_come_back() -> None:
    runs = factorial(3)
    value = np.array(
        [
            0.5 + 0.1 * run.seed
            + 0.03 * (run.levels["uncertainty"] == "linear")
            - 0.02 * (run.levels["perception"] == "kl")
            + 0.08 * (run.levels["uncertainty"] == "linear") * (run.levels["perception"] == "kl")
            for run in runs
        ]
    )  # fmt: skip
    found = {effect.name: effect.estimate.value for effect in effects_of(runs, benchmark(value)).effects}
    assert found == {
        "uncertainty=linear": pytest.approx(0.03 + 0.08 / 2),
        "perception=kl": pytest.approx(-0.02 + 0.08 / 2),
        "uncertainty=linear x perception=kl": pytest.approx(0.08),
    }


def test_one_module_over_seeds_is_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    runs = [
        Run(seed=seed, levels={"uncertainty": level, "perception": "none"})
        for seed in range(6)
        for level in ("none", "linear")
    ]
    value = rng.normal(0.6, 0.1, 12)
    found = effects_of(runs, benchmark(value)).effects[0].estimate
    expected = stats.ttest_rel(value[1::2], value[::2])
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_images_widen_the_interval() -> None:
    value = np.random.default_rng(1).normal(0.6, 0.01, 12)
    widths = []
    for image_sd in (0.0, 0.05):
        found = effects_of(factorial(3), benchmark(value, image_sd=image_sd)).effects[0].estimate
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_mean_over_benchmarks() -> None:
    runs = factorial(2)
    first, second = np.random.default_rng(2).normal(0.5, 0.1, (2, len(runs)))
    both = effects_of(runs, benchmark(first), benchmark(second)).effects[0].estimate.value
    single = [effects_of(runs, benchmark(value)).effects[0].estimate.value for value in (first, second)]
    assert both == pytest.approx(np.mean(single))


def test_what_runs_cannot_tell_is_named() -> None:
    runs = [
        run
        for run in factorial(3)
        if (run.levels["uncertainty"] == "none") == (run.levels["perception"] == "none")
    ]
    found = effects_of(runs, benchmark(np.linspace(0.4, 0.6, len(runs))))
    assert [effect.name for effect in found.effects] == ["uncertainty=linear"]
    assert found.not_estimable == ("perception=kl", "uncertainty=linear x perception=kl")


def test_without_a_degree_of_freedom_there_is_no_interval() -> None:
    found = effects_of(factorial(1), benchmark(np.array([0.5, 0.6, 0.7, 0.9])))
    assert found.residual_df == 0
    assert all(math.isnan(effect.estimate.p) for effect in found.effects)
    assert found.effects[2].estimate.value == pytest.approx(0.9 - 0.7 - 0.6 + 0.5)


def test_size_without_effects() -> None:
    rng = np.random.default_rng(3)
    runs, alarms = factorial(5), 0
    for _ in range(200):
        value = rng.normal(0, 0.02, len(runs)) + rng.normal(0, 0.05, 5)[[run.seed for run in runs]]
        effects = effects_of(runs, benchmark(value)).effects
        alarms += min(effect.p_adjusted for effect in effects) < 0.05
    assert 0.01 <= alarms / 200 <= 0.10


def single(value: float, p: float) -> Estimate:
    return Estimate(value=value, low=value - 0.008, high=value + 0.008, p=p, df=10.0)


@pytest.mark.parametrize(
    ("p", "koniq", "spaq", "said"),
    [
        (0.01, 0.01, 0.2, "p_adj 0.010; on koniq only"),
        (0.01, 0.01, 0.02, "p_adj 0.010; on every benchmark"),
        (0.0001, 0.5, 0.2, "p_adj < 0.001; on no single benchmark"),
        (0.2, 0.01, 0.2, "p_adj 0.200; no effect shown"),
    ],
)
def test_sentence(p: float, koniq: float, spaq: float, said: str) -> None:
    effect = Effect(modules=(("uncertainty", "linear"),), estimate=single(0.012, p), p_adjusted=p)
    text = effect_sentence(
        effect,
        metric="SRCC",
        level=0.05,
        by_benchmark={"koniq": single(0.02, koniq), "spaq": single(0.01, spaq)},
    )
    assert text == f"uncertainty=linear: +0.012 SRCC [0.004, 0.020], {said}"


def test_seeds_of_one_module_only_are_compared_as_two_samples() -> None:
    runs = [
        Run(seed=seed, levels={"uncertainty": "linear" if seed > 3 else "none", "perception": "none"})
        for seed in range(9)
    ]
    value = np.random.default_rng(3).normal(0.6, 0.1, 9)
    found = effects_of(runs, benchmark(value))
    expected = stats.ttest_ind(value[4:], value[:4])
    assert found.effects[0].estimate.p == pytest.approx(expected.pvalue)
    assert found.unpaired_seeds == tuple(range(9)) and found.not_estimable == ()


def test_a_seed_of_one_run_shares_a_block_and_the_others_stay_paired() -> None:
    both = [
        Run(seed=s, levels={"uncertainty": u, "perception": "none"})
        for s in (0, 1)
        for u in ("none", "linear")
    ]
    alone = [Run(seed=s, levels={"uncertainty": "linear", "perception": "none"}) for s in (2, 3)]
    # A hard seed 0 weighs on nobody: its pair says +0.1, as seed 1's does.
    value = np.array([0.1, 0.2, 0.5, 0.6, 0.55, 0.65])
    found = effects_of([*both, *alone], benchmark(value))
    assert found.effects[0].estimate.value == pytest.approx(0.1)
    assert found.unpaired_seeds == (2, 3)
    assert effects_of(both, benchmark(value[:4])).unpaired_seeds == ()
