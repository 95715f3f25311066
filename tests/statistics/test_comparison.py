"""Comparisons of methods: by hand, against other programs, and their size on equal methods."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qhk.statistics import comparison
from qhk.statistics.bootstrap import RESAMPLED
from qhk.statistics.comparison import BenchmarkScores, Part
from qhk.statistics.correlation import srcc


def scored(predictions: np.ndarray, mos: np.ndarray, clusters: np.ndarray, *, num: int) -> BenchmarkScores:
    return comparison.score_runs(
        predictions, mos, clusters, point=srcc, resampled=RESAMPLED["srcc"], num_resamples=num, seed=0
    )


def test_estimate_of_one_part_is_a_t_test() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.4])
    expected = stats.ttest_1samp(values, 0.0)
    interval = expected.confidence_interval(0.95)
    found = comparison.estimate(
        float(values.mean()), [Part(float(values.var(ddof=1)) / 5, 4.0)], confidence=0.95
    )
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.df == pytest.approx(4)


def test_degrees_of_freedom_lie_between_the_parts() -> None:
    found = comparison.estimate(1.0, [Part(1.0, 2.0), Part(1.0, 8.0)], confidence=0.95)
    assert found.df == pytest.approx(4 / (1 / 2 + 1 / 8))
    assert comparison.estimate(1.0, [Part(1.0, 2.0), Part(0.0, 8.0)], confidence=0.95).df == pytest.approx(2)


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.1, 0.0), (6e-17, 1.0)])
def test_without_variance_the_interval_is_the_value(value: float, p: float) -> None:
    found = comparison.estimate(value, [Part(0.0, 3.0)], confidence=0.95)
    assert (found.low, found.high, found.p) == (pytest.approx(value, abs=1e-12),) * 2 + (p,)


def test_unknown_variance_gives_no_interval() -> None:
    for parts in ([], [Part(math.nan, 1.0)]):
        found = comparison.estimate(0.1, parts, confidence=0.95)
        assert found.value == 0.1 and math.isnan(found.low) and math.isnan(found.p)


def test_equal_seeds_are_paired_and_others_are_welch() -> None:
    first, second = {0: 0.60, 1: 0.70, 2: 0.81}, {0: 0.50, 1: 0.61, 2: 0.70}
    paired = comparison.seed_part(first, second)
    assert paired is not None
    assert paired.variance == pytest.approx(np.var([0.10, 0.09, 0.11], ddof=1) / 3) and paired.df == 2
    others = {3: 0.50, 4: 0.61, 5: 0.70, 6: 0.66}
    welch = comparison.seed_part(first, others)
    expected = stats.ttest_ind(list(first.values()), list(others.values()), equal_var=False)
    assert welch is not None
    assert welch.df == pytest.approx(expected.df)
    difference = np.mean(list(first.values())) - np.mean(list(others.values()))
    assert difference / math.sqrt(welch.variance) == pytest.approx(expected.statistic)
    assert comparison.seed_part({0: 0.5}, second) is None


def test_all_runs_share_the_draws() -> None:
    mos, run = np.random.default_rng(0).normal(size=(2, 40))
    scores = scored(np.stack([run, run]), mos, np.arange(40), num=30)
    np.testing.assert_array_equal(scores.redrawn[0], scores.redrawn[1])
    assert scores.part(np.array([1.0, -1.0])).variance == 0


def test_images_part_makes_up_for_few_clusters() -> None:
    redrawn = np.array([[0.1, 0.2, 0.3, 0.4]])
    scores = BenchmarkScores(value=np.array([0.2]), redrawn=redrawn, num_clusters=5)
    part = scores.part(np.array([2.0]))
    assert part.variance == pytest.approx(4 * redrawn.var(ddof=1) * 5 / 4) and part.df == 4
    one = BenchmarkScores(value=np.array([0.2]), redrawn=redrawn, num_clusters=1)
    assert math.isnan(one.part(np.array([1.0])).variance)


def test_mean_over_benchmarks_by_hand() -> None:
    redrawn = np.array([[0.0, 0.2], [0.0, 0.0]])
    scores = [
        BenchmarkScores(value=np.array([0.5, 0.4]), redrawn=redrawn, num_clusters=2),
        BenchmarkScores(value=np.array([0.7, 0.4]), redrawn=redrawn * 0, num_clusters=2),
    ]
    found = comparison.compare_methods(scores, {0: 0}, {0: 1}, confidence=0.95)
    assert found.value == pytest.approx(0.2)
    variance = np.var([0.0, 0.2], ddof=1) * 2 / 4
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(variance))


def equal_methods(rng: np.random.Generator, *, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return runs of two equally good methods, each with likings of its own for 25 references."""
    clusters = np.repeat(np.arange(25), 12)
    mos = rng.normal(0, 1, clusters.size)
    runs = []
    for _ in range(2):
        method = mos + rng.normal(0, 0.6, 25)[clusters] + rng.normal(0, 0.4, mos.size)
        runs += [method + rng.normal(0, 0.2, 25)[clusters] for _ in range(seeds)]
    return np.array(runs), mos, clusters


@pytest.mark.parametrize("seeds", [1, 3])
def test_size_on_equal_methods_is_near_five_percent(seeds: int) -> None:
    """Drawing images instead of references calls equal methods different far too often."""
    rng = np.random.default_rng(0)
    false_alarms = {"references": 0, "images": 0}
    trials = 120
    for _ in range(trials):
        runs, mos, clusters = equal_methods(rng, seeds=seeds)
        first, second = ({seed: seed + side * seeds for seed in range(seeds)} for side in (0, 1))
        for name, drawn in (("references", clusters), ("images", np.arange(mos.size))):
            scores = scored(runs, mos, drawn, num=100)
            found = comparison.compare_methods([scores], first, second, confidence=0.95)
            false_alarms[name] += found.p < 0.05
    assert 0.005 <= false_alarms["references"] / trials <= 0.10
    assert false_alarms["images"] / trials > 0.15


def test_a_clearly_better_method_is_found() -> None:
    rng = np.random.default_rng(1)
    runs, mos, clusters = equal_methods(rng, seeds=3)
    runs[3:] += rng.normal(0, 1.5, (3, mos.size))
    scores = scored(runs, mos, clusters, num=200)
    found = comparison.compare_methods([scores], {0: 0, 1: 1, 2: 2}, {0: 3, 1: 4, 2: 5}, confidence=0.95)
    assert found.low > 0 and found.p < 0.01


def test_holm_by_hand_and_without_values() -> None:
    corrected = comparison.holm([0.01, math.nan, 0.04, 0.03])
    assert corrected[0] == pytest.approx(0.03)
    assert math.isnan(corrected[1])
    assert corrected[2] == corrected[3] == pytest.approx(0.06)
    assert comparison.holm([]) == []


def test_holm_equals_its_definition_on_many() -> None:
    p = np.random.default_rng(0).uniform(0, 0.1, 20)
    order = np.argsort(p)
    expected = np.empty(20)
    for rank, place in enumerate(order):
        expected[place] = min(1.0, max((20 - k) * p[order[k]] for k in range(rank + 1)))
    np.testing.assert_allclose(comparison.holm(p.tolist()), expected)


def test_probability_of_improvement_counts_ties_half() -> None:
    one = comparison.probability_of_improvement([np.array([0.5, 0.7])], [np.array([0.5, 0.6])])
    assert one == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    two = comparison.probability_of_improvement(
        [np.array([0.5, 0.7]), np.array([0.1])], [np.array([0.5, 0.6]), np.array([0.2])]
    )
    assert two == pytest.approx(one / 2)


def pairwise(size: int, **p: float) -> np.ndarray:
    """Return a symmetric matrix of p-values that are 1 but for those named like ``p01``."""
    matrix = np.ones((size, size))
    for name, value in p.items():
        i, j = int(name[1]), int(name[2])
        matrix[i, j] = matrix[j, i] = value
    return matrix


def test_best_and_second_need_a_test_behind_them() -> None:
    means = np.array([0.9, 0.8, 0.7, math.nan])
    best, second = comparison.best_and_second(means, pairwise(4, p01=0.01, p02=0.01, p12=0.02), level=0.05)
    assert best.tolist() == [True, False, False, False] and second.tolist() == [False, True, False, False]
    best, second = comparison.best_and_second(means, pairwise(4, p02=0.01), level=0.05)
    assert best.tolist() == [True, True, False, False] and not second.any()
    best, second = comparison.best_and_second(means, pairwise(4, p01=0.01, p02=0.01), level=0.05)
    assert second.tolist() == [False, True, True, False]
