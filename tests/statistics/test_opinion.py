"""The field's own tests, by hand and against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from qhk.statistics import opinion


def pairs_by_loop(prediction: np.ndarray, mos: np.ndarray, std: np.ndarray, ratings: float) -> tuple:
    apart, alike = [], []
    for i, j in itertools.combinations(range(len(mos)), 2):
        z = abs(mos[i] - mos[j]) / math.sqrt((std[i] ** 2 + std[j] ** 2) / ratings)
        predicted = prediction[i] - prediction[j]
        if z > stats.norm.ppf(0.975):
            apart.append(predicted if mos[i] > mos[j] else -predicted)
        else:
            alike.append(abs(predicted))
    different = [float(abs(a) > b) + 0.5 * (abs(a) == b) for a in apart for b in alike]
    better = [float(a > -b) + 0.5 * (a == -b) for a in apart for b in apart]
    return np.mean(different), np.mean(better), len(apart), len(alike)


@pytest.mark.parametrize("block", [4_000_000, 30])
def test_pairs_equal_a_plain_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinion, "PAIRS_PER_BLOCK", block)
    rng = np.random.default_rng(0)
    mos, std = rng.uniform(1, 5, 25), rng.uniform(0.5, 1.0, 25)
    prediction = (mos + rng.normal(0, 0.7, 25)).round(1)
    found = opinion.analyse_pairs(prediction, mos, std, 10, confidence=0.95)
    expected = pairs_by_loop(prediction, mos, std, 10)
    assert (found.different_auc, found.better_auc) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert (found.num_different, found.num_similar) == expected[2:]


def test_a_perfect_a_constant_and_an_inverted_method() -> None:
    mos, std = np.array([1.0, 1.05, 4.0, 4.1]), np.full(4, 0.3)
    perfect = opinion.analyse_pairs(mos, mos, std, 9, confidence=0.95)
    assert (perfect.different_auc, perfect.better_auc, perfect.better_share) == (1, 1, 1)
    assert (perfect.num_different, perfect.num_similar) == (4, 2)
    constant = opinion.analyse_pairs(np.ones(4), mos, std, 9, confidence=0.95)
    assert (constant.different_auc, constant.better_auc, constant.better_share) == (0.5, 0.5, 0.5)
    assert opinion.analyse_pairs(-mos, mos, std, 9, confidence=0.95).better_share == 0
    unsure = opinion.analyse_pairs(mos, mos, std * 100, 9, confidence=0.95)
    assert math.isnan(unsure.better_auc) and unsure.num_different == 0


def test_errors_within_the_opinions_interval_are_free() -> None:
    mos, std = np.array([2.0, 3.0, 4.0, 3.5, 2.5, 1.5]), np.full(6, 0.9)
    leave = stats.t.ppf(0.975, 8) * 0.9 / 3
    fitted = mos + np.array([leave - 0.01, 0.0, leave + 0.3, -leave - 0.4, 0.0, 0.0])
    found = opinion.analyse_errors(fitted, mos, std, 9, num_parameters=4, confidence=0.95)
    assert found.outlier_ratio == pytest.approx(2 / 6)
    assert found.rmse_star == pytest.approx(math.sqrt((0.3**2 + 0.4**2) / 2))
    few = opinion.analyse_errors(fitted[:4], mos[:4], std[:4], 9, num_parameters=4, confidence=0.95)
    assert math.isnan(few.rmse_star)


def test_rmse_by_the_f_test() -> None:
    assert opinion.compare_rmse(0.4, 0.4, 50) == 1.0
    critical = math.sqrt(stats.f.ppf(0.975, 50, 50))
    assert opinion.compare_rmse(0.4 * critical, 0.4, 50) == pytest.approx(0.05)
    assert opinion.compare_rmse(0.4, 0.4 * critical, 50) == pytest.approx(0.05)
    assert math.isnan(opinion.compare_rmse(0.0, 0.4, 50))
