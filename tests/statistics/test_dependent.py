"""Dependent correlations, against published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from qhk.statistics.dependent import field_tests, fisher_interval, williams_test, zou_interval


def test_williams_equals_the_published_example() -> None:
    """Five segments with two metrics; one-sided p 0.019 (the tests of Google's mt-metrics-eval)."""
    gold = np.array([1.0, 2, 3, 4, 5])
    better, worse = np.array([1.1, 2, 3.1, 4, 5.1]), np.array([1.5, 2, 3.1, 4, 5.5])
    r = np.corrcoef([better, worse, gold])
    test = williams_test(r[0, 2], r[1, 2], r[0, 1], 5)
    assert test.p / 2 == pytest.approx(0.019, abs=5e-4)
    assert test.df == 2 and test.t > 0
    swapped = williams_test(r[1, 2], r[0, 2], r[0, 1], 5)
    assert swapped.t == pytest.approx(-test.t) and swapped.p == pytest.approx(test.p)
    found = field_tests(better, worse, gold, ranked=False, on_scale=True, confidence=0.95)
    assert found.williams_p == pytest.approx(test.p) and found.low < found.difference < found.high
    ratio = (2 * 0.5**2 + 0.1**2) / (3 * 0.1**2)  # of the mean squared errors
    assert found.rmse_p == pytest.approx(2 * stats.f.sf(ratio, 5, 5))


def test_the_fields_tests_of_ranks_and_of_scores_without_a_scale() -> None:
    first, second, gold = np.random.default_rng(0).normal(size=(3, 30))
    found = field_tests(first + gold, second + gold, gold, ranked=True, on_scale=False, confidence=0.95)
    of_both = [stats.spearmanr(scores + gold, gold).statistic for scores in (first, second)]
    assert found.difference == pytest.approx(of_both[0] - of_both[1]) and math.isnan(found.rmse_p)
    stretched = field_tests(
        np.exp(first + gold), second + gold, gold, ranked=True, on_scale=False, confidence=0.95
    )
    assert (stretched.williams_p, stretched.low) == (found.williams_p, found.low)
    none = field_tests(np.ones(30), second, gold, ranked=True, on_scale=True, confidence=0.95)
    assert math.isnan(none.williams_p) and math.isnan(none.low)


def test_zou_equals_the_published_example() -> None:
    """R's cocor with r_jk .83, r_jh .16, r_kh .19 and n 30 gives [0.32, 1.04]."""
    interval = zou_interval(0.83, 0.16, 0.19, 30, confidence=0.95)
    assert (round(interval.low, 2), round(interval.high, 2)) == (0.32, 1.04)


def test_fisher_interval_equals_scipy() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    result = stats.pearsonr(x, y)
    expected = result.confidence_interval(0.9)
    interval = fisher_interval(float(result.statistic), 40, confidence=0.9)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_equal_methods_and_few_images_have_no_test() -> None:
    assert math.isnan(williams_test(0.5, 0.5, 1.0, 20).p)
    assert math.isnan(williams_test(0.5, 0.4, 0.3, 3).p)
    assert math.isnan(williams_test(1.0, 1.0, 0.9999, 10).p)
    assert math.isnan(zou_interval(1.0, 0.5, 0.5, 10, confidence=0.95).low)
    assert math.isnan(fisher_interval(1.0, 20, confidence=0.95).low)


def test_two_or_three_images_have_no_interval() -> None:
    for n in (2, 3):
        interval = zou_interval(0.5, 0.2, 0.1, n, confidence=0.95)
        assert math.isnan(interval.low) and math.isnan(interval.high)
