"""Bootstrap: every resample equals scipy on the expanded list, and intervals behave."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qhk.statistics import bootstrap, correlation


def pair(n: int, seed: int = 0, decimals: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mos = rng.uniform(1, 5, n).round(decimals)
    return (mos + rng.normal(0, 1, n)).round(decimals), mos


def test_counts_are_draws_with_replacement_from_the_seed() -> None:
    counts = np.concatenate(list(bootstrap.resample_counts(np.arange(7), 50, seed=3)))
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts == 0).any() and (counts > 1).any()
    again = np.concatenate(list(bootstrap.resample_counts(np.arange(7), 50, seed=3)))
    np.testing.assert_array_equal(counts, again)
    other = np.concatenate(list(bootstrap.resample_counts(np.arange(7), 50, seed=4)))
    assert (counts != other).any()


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(bootstrap.resample_counts(np.arange(9), 40, seed=1)))
    monkeypatch.setattr(bootstrap, "ENTRIES_PER_CHUNK", 30)
    chunks = list(bootstrap.resample_counts(np.arange(9), 40, seed=1))
    assert len(chunks) == 14
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


SCIPY = {
    "srcc": lambda x, y: stats.spearmanr(x, y).statistic,
    "plcc": lambda x, y: stats.pearsonr(x, y).statistic,
    "krcc": lambda x, y: stats.kendalltau(x, y).statistic,
    "rmse": lambda x, y: np.sqrt(np.mean((x - y) ** 2)),
    "mae": lambda x, y: np.mean(np.abs(x - y)),
}


@pytest.mark.parametrize("name", list(bootstrap.RESAMPLED))
@pytest.mark.parametrize("block", [2_000_000, 50])
def test_every_resample_equals_the_expanded_list(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = pair(23)
    counts = next(bootstrap.resample_counts(np.arange(23), 40, seed=5))
    monkeypatch.setattr(bootstrap, "ENTRIES_PER_CHUNK", block)
    fast = bootstrap.RESAMPLED[name](x, y, counts)
    naive = [SCIPY[name](np.repeat(x, row), np.repeat(y, row)) for row in counts]
    np.testing.assert_allclose(fast, naive, atol=1e-12)


def test_names_match_the_point_metrics() -> None:
    assert set(bootstrap.RESAMPLED) == set(correlation.POINT_METRICS)


@pytest.mark.parametrize("name", ["srcc", "plcc", "krcc"])
def test_constant_resample_is_nan(name: str) -> None:
    x, y = np.array([1.1, 2.3, 3.7]), np.array([3.1, 2.2, 1.3])
    counts = np.array([[3, 0, 0], [1, 1, 1]])
    values = bootstrap.RESAMPLED[name](x, y, counts)
    assert math.isnan(values[0])
    assert values[1] == pytest.approx(correlation.POINT_METRICS[name](x, y))


def test_interval_holds_the_value_and_narrows_with_n() -> None:
    widths = []
    for n in (30, 3000):
        x, y = pair(n, decimals=6)
        interval = bootstrap.bootstrap_interval(
            bootstrap.resampled_srcc, x, y, clusters=np.arange(n), num_resamples=300, confidence=0.95, seed=0
        )
        assert interval.low < correlation.srcc(x, y) < interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 5


def test_percentiles_by_hand() -> None:
    interval = bootstrap.percentile_interval(np.arange(101.0), confidence=0.9)
    assert (interval.low, interval.high) == (pytest.approx(5.0), pytest.approx(95.0))


def test_mostly_constant_resamples_give_no_interval() -> None:
    values = np.array([np.nan, np.nan, 0.5])
    assert math.isnan(bootstrap.percentile_interval(values, confidence=0.95).low)


@pytest.mark.parametrize(("n", "num_resamples"), [(0, 10), (5, 0)])
def test_nothing_to_resample_gives_no_interval(n: int, num_resamples: int) -> None:
    x, y = pair(n)
    interval = bootstrap.bootstrap_interval(
        bootstrap.resampled_plcc,
        x,
        y,
        clusters=np.arange(n),
        num_resamples=num_resamples,
        confidence=0.95,
        seed=0,
    )
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_clusters_are_references_and_single_images() -> None:
    clusters = bootstrap.cluster_index(["a", None, "b", "a", None, "image"])
    assert clusters.tolist() == [0, 1, 2, 0, 3, 4]


def test_a_cluster_is_drawn_with_all_its_images() -> None:
    clusters = np.array([0, 1, 0, 2, 1, 0])
    counts = np.concatenate(list(bootstrap.resample_counts(clusters, 200, seed=0)))
    for cluster in range(3):
        rows = counts[:, clusters == cluster]
        assert (rows == rows[:, :1]).all()
    drawn = counts[:, [0, 1, 3]]
    assert (drawn.sum(axis=1) == 3).all() and drawn.max() == 3 and drawn.min() == 0


def test_shared_references_widen_the_interval() -> None:
    """Forty copies of each of ten images are ten images, not four hundred."""
    x, y = pair(10, decimals=6)
    copies = np.repeat(np.arange(10), 40)

    def width(clusters: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
        interval = bootstrap.bootstrap_interval(
            bootstrap.resampled_plcc, x, y, clusters=clusters, num_resamples=400, confidence=0.95, seed=0
        )
        return interval.high - interval.low

    alone = width(np.arange(10), x, y)
    assert width(copies, x[copies], y[copies]) == pytest.approx(alone, abs=1e-12)
    assert width(np.arange(400), x[copies], y[copies]) < alone / 3


def test_one_reference_gives_no_interval() -> None:
    x, y = pair(20)
    interval = bootstrap.bootstrap_interval(
        bootstrap.resampled_srcc, x, y, clusters=np.zeros(20, int), num_resamples=50, confidence=0.95, seed=0
    )
    assert math.isnan(interval.low)
