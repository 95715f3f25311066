"""Bootstrap percentile intervals, exact and without one Python call per resample.

Images that share a reference are not independent: a method that likes a scene likes all its copies. Whole
clusters (references) are drawn therefore; an image without a reference is a cluster of its own.

A resample of n images is kept as how often each image was drawn, ``counts (B, n)``. Sums over a
resample are then products with ``counts``, and average ranks follow from cumulative counts along the
sorted values, so every resample is ranked anew without being sorted anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qhk.statistics.correlation import RELATIVE_SPREAD, Array, as_pair

Counts = npt.NDArray[np.int64]
Clusters = npt.NDArray[np.int64]
Statistic = Callable[[Array, Array, Counts], Array]

ENTRIES_PER_CHUNK = 2_000_000
MIN_FINITE_FRACTION = 0.5


@dataclass(frozen=True)
class Interval:
    """Bounds of a percentile interval; both NaN where there is none."""

    low: float
    high: float


def cluster_index(references: Sequence[str | None]) -> Clusters:
    """Return the cluster ``(n,)`` of every image, numbered from 0 in order of appearance.

    Images of one reference share a cluster; an image whose reference is None has its own.
    """
    numbers: dict[object, int] = {}
    keys = (
        ("image", place) if reference is None else ("reference", reference)
        for place, reference in enumerate(references)
    )
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def resample_counts(clusters: Clusters, num_resamples: int, *, seed: int) -> Iterator[Counts]:
    """Return chunks ``(b, n)`` of draw counts that add up to ``num_resamples`` rows.

    As many clusters are drawn as there are, with replacement, each with all its images; where every image
    is its own cluster, every row sums to n. The draws depend on ``seed`` and the sizes only, so metrics of
    one cell, and methods on the same images, share their resamples.
    """
    rng = np.random.default_rng(seed)
    num_clusters = int(clusters.max()) + 1
    rows = max(1, ENTRIES_PER_CHUNK // len(clusters))
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        drawn = rng.integers(0, num_clusters, (size, num_clusters)) + np.arange(size)[:, None] * num_clusters
        counts = np.bincount(drawn.ravel(), minlength=size * num_clusters).reshape(size, num_clusters)
        yield counts[:, clusters]


def _tie_counts(values: Array, counts: Counts) -> tuple[Counts, npt.NDArray[np.int64]]:
    """Return draws per distinct value ``(b, k)``, ascending, and the index of each image's value ``(n,)``."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    new = np.concatenate([[True], ascending[1:] != ascending[:-1]])
    group = np.empty(len(values), dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    return np.add.reduceat(counts[:, order], np.flatnonzero(new), axis=1), group


def resampled_ranks(values: Array, counts: Counts) -> Array:
    """Return the average rank ``(b, n)`` of every image's value inside each resample (1 = lowest drawn)."""
    drawn, group = _tie_counts(values, counts)
    ranks: Array = (np.cumsum(drawn, axis=1) - drawn + (drawn + 1) / 2)[:, group]
    return ranks


def _weighted_pearson(x: Array, y: Array, counts: Counts) -> Array:
    """Return the Pearson ``(b,)`` over the drawn images; NaN where the resample is constant on a side."""
    n = counts.sum(axis=1, keepdims=True)
    x, y = np.broadcast_to(x, counts.shape), np.broadcast_to(y, counts.shape)
    dx = x - (counts * x).sum(axis=1, keepdims=True) / n
    dy = y - (counts * y).sum(axis=1, keepdims=True) / n
    drawn = counts > 0
    constant = np.zeros(len(counts), dtype=bool)
    for side in (x, y):
        spread = np.where(drawn, side, -np.inf).max(axis=1) - np.where(drawn, side, np.inf).min(axis=1)
        constant |= spread <= RELATIVE_SPREAD * np.abs(side).max(axis=1)
    covariance, xx, yy = ((counts * a * b).sum(axis=1) for a, b in ((dx, dy), (dx, dx), (dy, dy)))
    scale = np.where(constant, 1.0, np.sqrt(xx * yy))
    return np.where(constant, np.nan, covariance / scale)


def resampled_plcc(prediction: Array, mos: Array, counts: Counts) -> Array:
    """Return the PLCC ``(b,)`` of every resample."""
    return _weighted_pearson(prediction, mos, counts)


def resampled_srcc(prediction: Array, mos: Array, counts: Counts) -> Array:
    """Return the SRCC ``(b,)`` of every resample, ranked inside it."""
    return _weighted_pearson(resampled_ranks(prediction, counts), resampled_ranks(mos, counts), counts)


def resampled_krcc(prediction: Array, mos: Array, counts: Counts) -> Array:
    """Return Kendall's tau-b ``(b,)`` of every resample; two copies of one image are a tie on both sides.

    Costs n^2 products per resample, in blocks of images, so that memory stays linear in n.
    """
    n = prediction.size
    block = max(1, ENTRIES_PER_CHUNK // n)
    score = np.zeros(len(counts))
    weights = counts.astype(np.float32)
    for start in range(0, n, block):
        rows = slice(start, start + block)
        # The factors are -1, 0, 1 and small counts: single precision is exact until a sum passes 2^24.
        agreement = np.sign(prediction[rows, None] - prediction) * np.sign(mos[rows, None] - mos)
        towards = weights @ agreement.T.astype(np.float32)
        score += (towards.astype(np.float64) * counts[:, rows]).sum(axis=1)
    total = counts.sum(axis=1)
    pairs = total * (total - 1) / 2
    untied = []
    for side in (prediction, mos):
        drawn, _ = _tie_counts(side, counts)
        untied.append(pairs - (drawn * (drawn - 1) / 2).sum(axis=1))
    scale = np.sqrt(untied[0] * untied[1])
    return np.where(scale > 0, score / 2 / np.where(scale > 0, scale, 1.0), np.nan)


def resampled_rmse(prediction: Array, mos: Array, counts: Counts) -> Array:
    """Return the root mean squared error ``(b,)`` of every resample."""
    root: Array = np.sqrt(counts @ (prediction - mos) ** 2 / counts.sum(axis=1))
    return root


def resampled_mae(prediction: Array, mos: Array, counts: Counts) -> Array:
    """Return the mean absolute error ``(b,)`` of every resample."""
    mean: Array = counts @ np.abs(prediction - mos) / counts.sum(axis=1)
    return mean


def resampled_mean(values: Array, _mos: Array, counts: Counts) -> Array:
    """Return the mean ``(b,)`` of the values of every resample; ``_mos`` is not used."""
    mean: Array = counts @ values / counts.sum(axis=1)
    return mean


RESAMPLED: dict[str, Statistic] = {
    "srcc": resampled_srcc,
    "plcc": resampled_plcc,
    "krcc": resampled_krcc,
    "rmse": resampled_rmse,
    "mae": resampled_mae,
}
"""The resampled form of every metric in ``correlation.POINT_METRICS``, by the same name."""


def percentile_interval(values: Array, *, confidence: float) -> Interval:
    """Return the central ``confidence`` share of the resampled values ``(B,)``.

    Constant resamples (NaN) are left out, which matters only for a handful of images or of distinct
    scores; where fewer than half are finite there is no interval.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.size < MIN_FINITE_FRACTION * values.size:
        return Interval(float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(float(low), float(high))


def bootstrap_interval(
    statistic: Statistic,
    prediction: Array,
    mos: Array,
    *,
    clusters: Clusters,
    num_resamples: int,
    confidence: float,
    seed: int,
) -> Interval:
    """Return the percentile interval of ``statistic`` over ``num_resamples`` draws of whole ``clusters``.

    ``clusters (n,)`` is each image's, as ``cluster_index`` numbers them. ``confidence`` lies in (0, 1). No
    interval (NaN) for ``num_resamples`` = 0, no images, or one cluster, which says nothing about others.
    """
    x, y = as_pair(prediction, mos)
    if num_resamples == 0 or x.size == 0 or clusters.max() == 0:
        return Interval(float("nan"), float("nan"))
    chunks = resample_counts(clusters, num_resamples, seed=seed)
    values = np.concatenate([statistic(x, y, counts) for counts in chunks])
    return percentile_interval(values, confidence=confidence)
