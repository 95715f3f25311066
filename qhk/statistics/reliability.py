"""Does a method know when it is wrong? Its spread over samples against its error, and intervals that hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from qhk.statistics.bootstrap import Clusters
from qhk.statistics.correlation import Array, srcc


@dataclass(frozen=True, kw_only=True)
class Sparsification:
    """Mean absolute error of what is left when the least sure share of images is put aside.

    ``shares (k,)`` are put aside; ``by_spread (k,)`` goes by the spread and ``by_error (k,)`` by the error
    itself, which is the best there is. ``area`` is the area between both over that between no order at all
    (the mean error) and the best: 0 where the spread orders as the error does, 1 where it is as good as
    chance, more where it misleads.
    """

    shares: Array
    by_spread: Array
    by_error: Array
    area: float


def spread_and_error(spread: Array, error: Array) -> float:
    """Return the SRCC of the spread over samples ``(n,)`` with the absolute error ``(n,)``."""
    return srcc(spread, np.abs(error))


def sparsify(spread: Array, error: Array, *, steps: int = 20) -> Sparsification:
    """Return the sparsification curves of absolute errors ``(n,)`` for shares 0, 1 / steps, ... below 1.

    Images of equal spread are put aside in the mean of all orders. ``area`` is NaN without images, and
    where all errors are equal. Source: Ilg et al., ECCV 2018, section 4.
    """
    size = np.abs(error)
    shares = np.arange(steps) / steps
    if size.size == 0:
        nothing = np.full(steps, math.nan)
        return Sparsification(shares=shares, by_spread=nothing, by_error=nothing, area=math.nan)
    by_spread = _mean_of_rest(spread, size, shares)
    by_error = _mean_of_rest(size, size, shares)
    chance = float((size.mean() - by_error).mean())
    area = float((by_spread - by_error).mean()) / chance if chance > 1e-12 * size.max() else math.nan
    return Sparsification(shares=shares, by_spread=by_spread, by_error=by_error, area=area)


def _mean_of_rest(key: Array, size: Array, shares: Array) -> Array:
    """Return the mean of ``size`` over images kept when the share with the largest ``key`` is put aside."""
    _, group = np.unique(key, return_inverse=True)
    mean_of_group = np.bincount(group, weights=size) / np.bincount(group)
    ascending = np.sort(group)
    sums = np.cumsum(mean_of_group[ascending])
    kept = np.maximum(1, np.ceil(len(size) * (1 - shares) - 1e-9).astype(int))
    means: Array = sums[kept - 1] / kept
    return means


@dataclass(frozen=True, kw_only=True)
class Conformal:
    """Intervals ``prediction +- reach`` held to a coverage: what was asked, what was found, how wide."""

    coverage: float
    found: float
    mean_width: float


def split_conformal(
    prediction: Array, spread: Array | None, mos: Array, clusters: Clusters, *, coverage: float, seed: int
) -> Conformal:
    """Return what split-conformal intervals reach: made on one half of the references, tried on the other.

    Scores are ``|mos - prediction|``, divided by ``spread`` (made positive by the mean spread) where that is
    given, so that unsure answers get wide intervals. The reach is the ``ceil((n + 1) coverage)``-th smallest
    score of the n of the first half; where n is too small for that, the interval is endless. Both halves
    take either part and the means of both are returned. Source: Lei et al. 2018, algorithm 2.
    """
    scale = np.ones_like(prediction) if spread is None else spread + max(float(spread.mean()), 1e-12)
    scores = np.abs(mos - prediction) / scale
    order = np.random.default_rng(seed).permutation(int(clusters.max()) + 1)
    first = np.isin(clusters, order[: len(order) // 2])
    found, widths = [], []
    for made_on in (first, ~first):
        n = int(made_on.sum())
        place = math.ceil((n + 1) * coverage)
        reach = float(np.sort(scores[made_on])[place - 1]) if 0 < place <= n else math.inf
        found.append(float(np.mean(scores[~made_on] <= reach)) if n < len(scores) else math.nan)
        widths.append(float(np.mean(2 * reach * scale[~made_on])) if n < len(scores) else math.nan)
    return Conformal(coverage=coverage, found=math.fsum(found) / 2, mean_width=math.fsum(widths) / 2)


def tie_broken_srcc(prediction: Array, mos: Array, *, num_orders: int, seed: int) -> float:
    """Return the mean SRCC over random orders of tied predictions.

    Average ranks flatter a method that answers with few values: its ties cost it nothing. With ties broken
    at random, equal predictions are ordered by chance. Equal to SRCC where no two predictions are equal.
    """
    rng = np.random.default_rng(seed)
    ranks = stats.rankdata(mos)
    values = []
    for _ in range(num_orders):
        noise = rng.permutation(len(prediction))
        broken = np.empty(len(prediction))
        broken[np.lexsort((noise, prediction))] = np.arange(len(prediction))
        values.append(srcc(broken, ranks))
    return math.fsum(values) / len(values)
