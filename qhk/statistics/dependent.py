"""Two correlations with the same human scores, by formula: a check on the bootstrap, and the field's habit.

Both compare ``r_1g`` and ``r_2g``, the correlations of two methods with human scores ``g``, given ``r_12``,
the correlation of the methods. They assume independent images and Pearson correlations of normal values;
with shared references or ranks they are approximations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from qhk.statistics.bootstrap import Interval
from qhk.statistics.correlation import Array
from qhk.statistics.opinion import compare_rmse


@dataclass(frozen=True)
class WilliamsTest:
    """Williams's statistic with its degrees of freedom and two-sided p."""

    t: float
    df: int
    p: float


def williams_test(r_1g: float, r_2g: float, r_12: float, n: int) -> WilliamsTest:
    """Return Williams's test of ``r_1g = r_2g``; positive ``t`` says that the first is larger.

    ``t = (r_1g - r_2g) sqrt((n - 1)(1 + r_12) / (2 |R| (n - 1) / (n - 3) + m^2 (1 - r_12)^3))`` with
    ``m = (r_1g + r_2g) / 2`` and ``|R|`` the determinant of the three correlations; ``n - 3`` degrees of
    freedom. Source: Williams 1959; Steiger 1980, equation 7. NaN for ``n`` below 4, equal methods and perfect
    correlations.
    """
    determinant = 1 - r_1g**2 - r_2g**2 - r_12**2 + 2 * r_1g * r_2g * r_12
    if n < 4 or max(abs(r_1g), abs(r_2g), abs(r_12)) >= 1 or determinant <= 0:
        return WilliamsTest(math.nan, max(n - 3, 0), math.nan)
    middle = (r_1g + r_2g) / 2
    scale = 2 * determinant * (n - 1) / (n - 3) + middle**2 * (1 - r_12) ** 3
    t = float(r_1g - r_2g) * math.sqrt((n - 1) * (1 + r_12) / scale)
    return WilliamsTest(t, n - 3, float(2 * stats.t.sf(abs(t), n - 3)))


def fisher_interval(r: float, n: int, *, confidence: float) -> Interval:
    """Return the interval of one Pearson correlation over ``n`` images, by Fisher's z; NaN for n below 4."""
    if n < 4 or not abs(r) < 1:
        return Interval(math.nan, math.nan)
    reach = stats.norm.ppf((1 + confidence) / 2) / math.sqrt(n - 3)
    low, high = np.tanh([math.atanh(r) - reach, math.atanh(r) + reach])
    return Interval(float(low), float(high))


def zou_interval(r_1g: float, r_2g: float, r_12: float, n: int, *, confidence: float) -> Interval:
    """Return Zou's interval of ``r_1g - r_2g``, from the Fisher intervals of both and their covariance.

    NaN for ``n`` below 4 and perfect correlations. Source: Zou 2007, Psychological Methods 12(4), the case of
    two correlations that overlap in a variable.
    """
    if n < 4 or max(abs(r_1g), abs(r_2g)) >= 1:
        return Interval(math.nan, math.nan)
    first, second = (fisher_interval(r, n, confidence=confidence) for r in (r_1g, r_2g))
    shared = (r_12 - r_1g * r_2g / 2) * (1 - r_1g**2 - r_2g**2 - r_12**2) + r_12**3
    c = shared / ((1 - r_1g**2) * (1 - r_2g**2))
    down_1, up_1 = r_1g - first.low, first.high - r_1g
    down_2, up_2 = r_2g - second.low, second.high - r_2g
    difference = r_1g - r_2g
    return Interval(
        difference - math.sqrt(max(0.0, down_1**2 + up_2**2 - 2 * c * down_1 * up_2)),
        difference + math.sqrt(max(0.0, up_1**2 + down_2**2 - 2 * c * up_1 * down_2)),
    )


@dataclass(frozen=True, kw_only=True)
class FieldTests:
    """What formulas say of two methods on the images of one benchmark.

    ``difference`` of their correlations with its interval by Zou, the p of Williams's test, and ``rmse_p`` of
    the F test of P.1401; NaN where a test cannot be made.
    """

    difference: float
    low: float
    high: float
    williams_p: float
    rmse_p: float


def field_tests(
    first: Array, second: Array, mos: Array, *, ranked: bool, on_scale: bool, confidence: float
) -> FieldTests:
    """Return the field's tests of two methods' scores ``(n,)`` of the same images.

    ``ranked``: correlations are Spearman's. Without ``on_scale`` a score's size means nothing: no errors.
    """
    first_rmse, second_rmse = (math.sqrt(float(np.mean((scores - mos) ** 2))) for scores in (first, second))
    if ranked:
        first, second, mos = (stats.rankdata(values) for values in (first, second, mos))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef([first, second, mos])
    of_first, of_second, shared = float(r[0, 2]), float(r[1, 2]), float(r[0, 1])
    interval = zou_interval(of_first, of_second, shared, len(mos), confidence=confidence)
    return FieldTests(
        difference=of_first - of_second,
        low=interval.low,
        high=interval.high,
        williams_p=williams_test(of_first, of_second, shared, len(mos)).p,
        rmse_p=compare_rmse(first_rmse, second_rmse, len(mos)) if on_scale else math.nan,
    )
