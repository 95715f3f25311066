"""Correlations: parity with scipy, hand-worked numbers, ties, and what has no correlation."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import optimize, stats

from qhk.statistics import correlation


def noisy_pair(seed: int, n: int = 60, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mos = rng.uniform(1, 5, n)
    prediction = mos + rng.normal(0, 0.8, n)
    return (prediction if decimals is None else prediction.round(decimals)), mos


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(5))
def test_parity_with_scipy_with_and_without_ties(seed: int, decimals: int | None) -> None:
    x, y = noisy_pair(seed, decimals=decimals)
    y = y.round(1)
    assert correlation.plcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert correlation.srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert correlation.krcc(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_hand_worked_numbers() -> None:
    # ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6; two of six pairs discordant: 1/3
    x, y = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]
    assert correlation.srcc(x, y) == pytest.approx(0.6)
    assert correlation.plcc(x, y) == pytest.approx(0.6)
    assert correlation.krcc(x, y) == pytest.approx(1 / 3)
    assert correlation.rmse(x, y) == 1.0
    assert correlation.mae(x, y) == 1.0


def test_hand_worked_ties() -> None:
    # ranks of x: 1.5 1.5 3.5 3.5; against 1 2 3 4 Pearson is 4 / sqrt(4 * 5)
    x, y = [2.0, 2.0, 3.0, 3.0], [1.0, 2.0, 3.0, 4.0]
    assert correlation.srcc(x, y) == pytest.approx(4 / math.sqrt(20))
    # four concordant of six pairs, four of them untied in x: 4 / sqrt(4 * 6)
    assert correlation.krcc(x, y) == pytest.approx(4 / math.sqrt(24))


@pytest.mark.parametrize("name", ["srcc", "plcc", "krcc"])
def test_constant_side_is_nan_never_zero(name: str) -> None:
    metric = correlation.POINT_METRICS[name]
    varied = [1.0, 2.0, 3.0, 4.0]
    assert math.isnan(metric([3.0] * 4, varied))
    assert math.isnan(metric(varied, [3.0] * 4))
    rounding = [0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2]
    assert math.isnan(metric(rounding, varied))
    assert math.isnan(correlation.logistic_plcc([3.0] * 4, varied).value)


@pytest.mark.parametrize("name", list(correlation.POINT_METRICS))
@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_images_is_nan(name: str, n: int) -> None:
    x = [1.0, 2.0][:n]
    assert math.isnan(correlation.POINT_METRICS[name](x, x))
    assert math.isnan(correlation.logistic_plcc(x, x).value)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        correlation.plcc([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="unparsed"):
        correlation.srcc([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])


def test_fit_recovers_a_logistic_and_matches_curve_fit() -> None:
    x = np.linspace(1, 5, 40)
    truth = np.array([4.6, 1.2, 2.7, 0.35])
    y = correlation.logistic(x, truth)
    parameters = correlation.fit_logistic(x, y)
    assert parameters is not None
    np.testing.assert_allclose(parameters, truth, rtol=1e-6)
    result = correlation.logistic_plcc(x, y)
    assert result.fallback == ""
    assert result.value == pytest.approx(1.0, abs=1e-10)
    assert correlation.plcc(x, y) < 0.97

    noisy = y + np.random.default_rng(0).normal(0, 0.2, len(y))
    start = (noisy.max(), noisy.min(), x.mean(), x.std() / 4)
    expected, _ = optimize.curve_fit(
        lambda x, b1, b2, b3, b4: (b1 - b2) / (1 + np.exp(-(x - b3) / b4)) + b2, x, noisy, p0=start
    )
    curve = correlation.logistic(x, expected)
    assert correlation.logistic_plcc(x, noisy).value == pytest.approx(
        np.corrcoef(curve, noisy)[0, 1], abs=1e-6
    )


def test_inverted_prediction_is_not_turned_around_by_the_fit() -> None:
    x, y = noisy_pair(3)
    result = correlation.logistic_plcc(-x, y)
    assert result.fallback != ""
    assert result.value == correlation.plcc(-x, y) < -0.5
    np.testing.assert_array_equal(result.fitted, -x)


def test_fit_without_convergence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = noisy_pair(0)
    monkeypatch.setattr(correlation, "fit_logistic", lambda x, y: None)
    result = correlation.logistic_plcc(x, y)
    assert (result.value, result.fallback) == (correlation.plcc(x, y), "no convergence")


def test_fit_below_raw_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = noisy_pair(0)
    monkeypatch.setattr(correlation, "fit_logistic", lambda x, y: np.array([5.0, 1.0, -1.0, 0.2]))
    result = correlation.logistic_plcc(x, y)
    assert (result.value, result.fallback) == (correlation.plcc(x, y), "fit below raw")


def test_a_curve_that_is_a_step_is_told() -> None:
    random = np.random.default_rng(1)
    x, noise = random.normal(3, 0.5, 200), random.normal(0, 0.3, 200)
    step = correlation.logistic_plcc(x, np.where(x > 3.1, 4.0, 2.0) + noise)
    assert step.is_step and step.value > 0.95 > 0.8 > correlation.plcc(x, np.where(x > 3.1, 4.0, 2.0) + noise)
    assert not correlation.logistic_plcc(x, x + noise).is_step
    levels = np.round(x)  # 2, 3 and 4 rise evenly: a third of the images is between the ends
    assert not correlation.logistic_plcc(levels, levels + noise).is_step
    two = np.where(x > 3.1, 4.0, 2.0)  # any curve through two values is a step, and changes nothing
    assert not correlation.logistic_plcc(two, two + noise).is_step


@pytest.mark.parametrize("seed", range(20))
def test_fitted_is_never_below_raw_and_few_levels_do_not_break_it(seed: int) -> None:
    x, y = noisy_pair(seed, n=12, decimals=0)
    result = correlation.logistic_plcc(x, y)
    assert result.value >= correlation.plcc(x, y)
    assert result.value == pytest.approx(correlation.plcc(result.fitted, y), abs=1e-12)


def test_jacobian_is_the_logistics_slope() -> None:
    x, parameters = np.linspace(-2.0, 6.0, 9), np.array([4.5, 1.2, 3.1, 0.7])
    steps = 1e-6 * np.eye(4)
    slopes = [
        (correlation.logistic(x, parameters + step) - correlation.logistic(x, parameters - step)) / 2e-6
        for step in steps
    ]
    np.testing.assert_allclose(
        correlation.logistic_jacobian(x, parameters), np.stack(slopes, axis=1), atol=1e-8
    )


STEP_LIKE = """
import numpy as np
from qhk.statistics.correlation import fit_logistic
prediction = np.array([4.1, 2.4, 4.7, 3.7, 4.8, 4.1])
mos = np.array([3.33519785, 1.38450383, 2.29521442, 1.97493267, 3.17692148, 3.38201782])
for _ in range(200):
    print(fit_logistic(prediction, mos).tobytes().hex())
"""


def test_fit_does_not_depend_on_what_memory_held_before() -> None:
    # Centre and width cannot be told apart here: many steps fit alike, and one must always be taken.
    dirty = {**os.environ, "MALLOC_PERTURB_": "127"}
    done = subprocess.run(
        [sys.executable, "-c", STEP_LIKE], env=dirty, capture_output=True, text=True, check=True
    )
    assert len(set(done.stdout.split())) == 1


def test_logistic_does_not_overflow() -> None:
    with np.errstate(over="raise"):
        curve = correlation.logistic(np.array([-1e6, 1e6]), np.array([5.0, 1.0, 3.0, 1e-3]))
    np.testing.assert_array_equal(curve, [1.0, 5.0])
