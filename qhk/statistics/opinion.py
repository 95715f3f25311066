"""Tests of the quality-assessment field, which use how sure the human scores are themselves.

A mean opinion score of few raters is a guess: two images whose scores differ by less than that guess allows
are not a pair that a method could get wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from qhk.statistics.correlation import Array

PAIRS_PER_BLOCK = 4_000_000


@dataclass(frozen=True, kw_only=True)
class PairAnalysis:
    """Krasula's two questions over all pairs of images.

    ``different_auc``: how well ``|difference of predictions|`` tells pairs that people see apart from pairs
    that they do not. ``better_auc``: among pairs that people see apart, how well the signed difference tells
    which image is better; ``better_share`` the share of them ordered right, ties half. 0.5 is chance. NaN
    where there are no pairs of a kind.
    """

    different_auc: float
    better_auc: float
    better_share: float
    num_different: int
    num_similar: int


def analyse_pairs(
    prediction: Array, mos: Array, mos_std: Array, num_ratings: float, *, confidence: float
) -> PairAnalysis:
    """Return how a method does on pairs that differ, and on pairs that do not, by their human scores.

    ``mos_std (n,)`` is the standard deviation of single opinions and ``num_ratings`` how many there are per
    image. A pair differs where ``|m_i - m_j| / sqrt((s_i^2 + s_j^2) / num_ratings)`` exceeds the normal
    quantile of ``confidence``. Source: Krasula et al., QoMEX 2016, sections II and III.
    """
    critical = stats.norm.ppf((1 + confidence) / 2)
    apart, alike = [], []
    for i, j in _pairs(len(mos)):
        error = np.sqrt((mos_std[i] ** 2 + mos_std[j] ** 2) / num_ratings)
        difference = mos[i] - mos[j]
        differs = np.abs(difference) > critical * error
        predicted = prediction[i] - prediction[j]
        apart.append((predicted * np.sign(difference))[differs])
        alike.append(np.abs(predicted)[~differs])
    towards, similar = np.concatenate(apart), np.concatenate(alike)
    return PairAnalysis(
        different_auc=_auc(np.abs(towards), similar),
        better_auc=_auc(towards, -towards),
        better_share=float(np.mean((np.sign(towards) + 1) / 2)) if towards.size else math.nan,
        num_different=len(towards),
        num_similar=len(similar),
    )


def _pairs(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return the index pairs i < j in blocks, so that memory stays bounded for thousands of images."""
    rows = max(1, PAIRS_PER_BLOCK // max(n, 1))
    for start in range(0, n, rows):
        i, j = np.meshgrid(np.arange(start, min(start + rows, n)), np.arange(n), indexing="ij")
        upper = j > i
        yield i[upper], j[upper]


def _auc(positive: Array, negative: Array) -> float:
    """Return the chance that a positive value exceeds a negative one, ties half; NaN for an empty side."""
    if not (positive.size and negative.size):
        return math.nan
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    above = ranks[: positive.size].sum() - positive.size * (positive.size + 1) / 2
    return float(above / positive.size / negative.size)


@dataclass(frozen=True, kw_only=True)
class ErrorAnalysis:
    """ITU-T P.1401: errors beyond what the opinions leave open, and the share of images with such errors."""

    rmse_star: float
    outlier_ratio: float


def analyse_errors(
    fitted: Array, mos: Array, mos_std: Array, num_ratings: float, *, num_parameters: int, confidence: float
) -> ErrorAnalysis:
    """Return RMSE* and the outlier ratio of predictions that were mapped onto the scale of the opinions.

    An image's leave is the half-width ``c`` of the interval of its mean opinion, Student's with
    ``num_ratings - 1`` degrees of freedom. ``RMSE* = sqrt(sum max(0, |mos - fitted| - c)^2 / (n - d))`` with
    ``d = num_parameters`` of the mapping; an outlier has ``|mos - fitted| > c``. Source: ITU-T P.1401
    (01/2020), clauses 7.7 and 7.5.2.2. NaN where images do not outnumber parameters.
    """
    leave = stats.t.ppf((1 + confidence) / 2, num_ratings - 1) * mos_std / math.sqrt(num_ratings)
    excess = np.maximum(0.0, np.abs(mos - fitted) - leave)
    left = len(mos) - num_parameters
    return ErrorAnalysis(
        rmse_star=math.sqrt(float(excess @ excess) / left) if left > 0 else math.nan,
        outlier_ratio=float(np.mean(excess > 0)) if len(mos) else math.nan,
    )


def compare_rmse(first: float, second: float, n: int, *, num_parameters: int = 0) -> float:
    """Return the two-sided p of equal RMSE of two methods over ``n`` images by the F test of P.1401, 7.6.4.

    It takes the errors of both methods for independent, though they are made on the same images, and so
    finds too little where they err alike; ``comparison.compare_methods`` does not.
    """
    if min(first, second) <= 0 or n <= num_parameters:
        return math.nan
    ratio = (max(first, second) / min(first, second)) ** 2
    df = n - num_parameters
    return float(min(1.0, 2 * stats.f.sf(ratio, df, df)))
