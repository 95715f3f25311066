"""Is one method better than another, on these benchmarks, over images and over seeds?

Two things are left to chance: which images (references) a benchmark holds, and which seed a run had. A
difference is real where it stands out from both. For every benchmark the clusters of images are drawn
again, the same for all runs, with the runs as they are: that gives the variance which images bring. How the
runs of a method differ by seed gives the other variance. Both are added, and the interval is Student's with
Satterthwaite's degrees of freedom, so that three seeds count as three seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from qhk.statistics.bootstrap import Clusters, Statistic, resample_counts
from qhk.statistics.correlation import Array, Scores

ROUNDING = 1e-12
"""Differences of scores below this are rounding."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value, its interval, and the two-sided p of its being zero; NaN where nothing can be said."""

    value: float
    low: float
    high: float
    p: float
    df: float


@dataclass(frozen=True)
class Part:
    """One source of chance: the variance that it brings to a value, and its degrees of freedom."""

    variance: float
    df: float


@dataclass(frozen=True, kw_only=True)
class BenchmarkScores:
    """A metric of R runs on the images of one benchmark: ``value (R,)`` and under B redraws ``(R, B)``."""

    value: Array
    redrawn: Array
    num_clusters: int

    def part(self, weights: Array) -> Part:
        """Return what the choice of images brings to ``weights @ value``.

        A bootstrap of m clusters has (m - 1) / m of the variance of new clusters; that is made up for.
        """
        contrast = weights @ self.redrawn
        contrast = contrast[np.isfinite(contrast)]
        if contrast.size < 2 or self.num_clusters < 2:
            return Part(math.nan, 1.0)
        m = self.num_clusters
        return Part(float(contrast.var(ddof=1)) * m / (m - 1), m - 1.0)


def score_runs(
    predictions: Array,
    mos: Array,
    clusters: Clusters,
    *,
    point: Callable[[Scores, Scores], float],
    resampled: Statistic,
    num_resamples: int,
    seed: int,
) -> BenchmarkScores:
    """Return the metric of runs with predictions ``(R, n)`` of the same images, as they are and redrawn.

    ``point`` and ``resampled`` are one metric (``POINT_METRICS``, ``RESAMPLED``). All runs share the draws.
    """
    assert predictions.shape[1:] == mos.shape == clusters.shape
    value = np.array([point(run, mos) for run in predictions])
    redrawn = [
        np.stack([resampled(run, mos, counts) for run in predictions])
        for counts in resample_counts(clusters, num_resamples, seed=seed)
    ]
    return BenchmarkScores(
        value=value, redrawn=np.concatenate(redrawn, axis=1), num_clusters=int(clusters.max()) + 1
    )


def estimate(value: float, parts: Sequence[Part], *, confidence: float) -> Estimate:
    """Return ``value`` with Student's interval: variances are added, degrees of freedom are Satterthwaite's.

    ``df = (sum v)^2 / sum(v^2 / df)``. Without any variance (equal runs) the interval is the value itself
    and p is 1 for a value of 0, else 0.
    """
    total = math.fsum(part.variance for part in parts)
    if abs(value) < ROUNDING:
        value = 0.0
    if math.isnan(value) or math.isnan(total) or not parts:
        return Estimate(value=value, low=math.nan, high=math.nan, p=math.nan, df=math.nan)
    if total <= ROUNDING**2:
        return Estimate(value=value, low=value, high=value, p=float(value == 0), df=math.inf)
    df = total**2 / math.fsum(part.variance**2 / part.df for part in parts)
    reach = float(stats.t.ppf((1 + confidence) / 2, df)) * math.sqrt(total)
    p = float(2 * stats.t.sf(abs(value) / math.sqrt(total), df))
    return Estimate(value=value, low=value - reach, high=value + reach, p=p, df=df)


def seed_part(first: Mapping[int, float], second: Mapping[int, float]) -> Part | None:
    """Return what seeds bring to the difference of two methods' means; None where a method has one seed.

    ``first`` and ``second`` map a seed to the run's value. Equal seeds share their data order and their
    cold start, so with the same seeds on both sides the differences per seed are what varies; with other
    seeds the variances of both means are added (Welch).
    """
    if min(len(first), len(second)) < 2:
        return None
    if first.keys() == second.keys():
        differences = np.array([first[seed] - second[seed] for seed in first])
        return Part(float(differences.var(ddof=1)) / len(differences), len(differences) - 1.0)
    variances = [float(np.var(list(side.values()), ddof=1)) / len(side) for side in (first, second)]
    total = sum(variances)
    if total == 0:
        return Part(0.0, 1.0)
    df = total**2 / sum(v**2 / (len(side) - 1) for v, side in zip(variances, (first, second), strict=True))
    return Part(total, df)


def compare_methods(
    scores: Sequence[BenchmarkScores],
    first: Mapping[int, int],
    second: Mapping[int, int],
    *,
    confidence: float,
) -> Estimate:
    """Return how much better ``first`` is than ``second``: the mean difference over benchmarks and seeds.

    ``first`` and ``second`` map a seed to a row of ``scores``, which hold the same runs for every benchmark.
    With one seed on a side the interval is over images only: it says nothing about other seeds.
    """
    num_runs = len(scores[0].value)
    weights = np.zeros(num_runs)
    weights[list(first.values())] += 1 / len(first)
    weights[list(second.values())] -= 1 / len(second)
    mean = np.mean([benchmark.value for benchmark in scores], axis=0)
    parts = image_parts(scores, weights)
    seeds = seed_part(
        {seed: float(mean[row]) for seed, row in first.items()},
        {seed: float(mean[row]) for seed, row in second.items()},
    )
    return estimate(
        float(weights @ mean), [*parts, *([] if seeds is None else [seeds])], confidence=confidence
    )


def image_parts(scores: Sequence[BenchmarkScores], weights: Array) -> list[Part]:
    """Return what each benchmark's choice of images brings to the mean contrast over benchmarks."""
    parts = [benchmark.part(weights) for benchmark in scores]
    return [Part(part.variance / len(scores) ** 2, part.df) for part in parts]


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down; NaN stays NaN and does not count."""
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(np.isfinite(values))
    ascending = known[np.argsort(values[known], kind="stable")]
    times = len(known) - np.arange(len(known))
    corrected = np.full(len(values), math.nan)
    corrected[ascending] = np.minimum(1.0, np.maximum.accumulate(times * values[ascending]))
    return [float(value) for value in corrected]


def probability_of_improvement(first: Sequence[Array], second: Sequence[Array]) -> float:
    """Return the chance that a run of the first method beats one of the second, ties counting half.

    One pair of arrays, a value per seed, for each benchmark; the mean over benchmarks of the Mann-Whitney
    U over its number of pairs. Source: Agarwal et al. 2021 (rliable), section 4.3.
    """
    # SciPy has it beside an exact p, which takes most of the time and is of no use here.
    shares = [float(np.mean((np.sign(a[:, None] - b) + 1) / 2)) for a, b in zip(first, second, strict=True)]
    return math.fsum(shares) / len(shares)


Mask = npt.NDArray[np.bool_]


def best_and_second(means: Array, p: Array, *, level: float) -> tuple[Mask, Mask]:
    """Return which of M methods may be marked best and second: masks ``(M,)``.

    ``means (M,)`` and corrected p-values ``p (M, M)`` of the pairwise differences. Best is the highest mean
    where it differs from the next by ``p < level``; else all that do not differ from it share the mark, and
    nobody is second. Second is found in the same way among those that are not best.
    """
    best = _leaders(means, p, np.ones(len(means), dtype=bool), level)
    if best.sum() != 1:
        return best, np.zeros(len(means), dtype=bool)
    return best, _leaders(means, p, ~best, level)


def _leaders(means: Array, p: Array, among: Mask, level: float) -> Mask:
    """Return those of ``among`` that do not differ from the highest mean of them."""
    known = among & np.isfinite(means)
    leaders = np.zeros(len(means), dtype=bool)
    if known.any():
        top = int(np.argmax(np.where(known, means, -np.inf)))
        leaders = known & ~(p[top] < level)
        leaders[top] = True
    return leaders
