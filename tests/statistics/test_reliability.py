"""Spread against error, conformal intervals, ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from qhk.statistics import reliability
from qhk.statistics.correlation import srcc


def test_sparsification_by_hand() -> None:
    error = np.array([1.0, -4.0, 2.0, 3.0])
    found = reliability.sparsify(np.array([0.1, 0.2, 0.9, 0.3]), error, steps=4)
    assert found.shares.tolist() == [0, 0.25, 0.5, 0.75]
    assert found.by_error.tolist() == [2.5, 2.0, 1.5, 1.0]
    assert found.by_spread.tolist() == pytest.approx([2.5, 8 / 3, 2.5, 1.0])
    assert found.area == pytest.approx((0 + 2 / 3 + 1 + 0) / (0 + 0.5 + 1 + 1.5))


def test_area_of_the_best_of_chance_and_of_nothing() -> None:
    error = np.random.default_rng(0).exponential(1.0, 400)
    assert reliability.sparsify(error, error).area == 0
    assert reliability.sparsify(np.ones(400), error).area == pytest.approx(1)
    assert reliability.sparsify(-error, error).area > 1
    assert math.isnan(reliability.sparsify(error, np.ones(400)).area)
    assert math.isnan(reliability.sparsify(np.array([]), np.array([])).area)


def test_spread_goes_with_the_size_of_the_error() -> None:
    assert reliability.spread_and_error(np.array([0.1, 0.2, 0.3]), np.array([0.1, -0.5, 0.9])) == 1


@pytest.mark.parametrize("with_spread", [False, True])
def test_conformal_intervals_cover_what_they_say(with_spread: bool) -> None:
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.1, 1.0, 4000)
    mos = rng.uniform(1, 5, 4000)
    prediction = mos + spread * rng.normal(size=4000)
    found = reliability.split_conformal(
        prediction, spread if with_spread else None, mos, np.arange(4000), coverage=0.9, seed=0
    )
    assert found.found == pytest.approx(0.9, abs=0.015)
    assert 1 < found.mean_width < 3


def test_conformal_by_hand_and_without_enough_images() -> None:
    clusters = np.array([0, 0, 0, 1, 1, 1])
    error = np.array([0.1, 0.2, 0.3, 0.25, 0.05, 0.4])
    found = reliability.split_conformal(error, None, np.zeros(6), clusters, coverage=0.5, seed=0)
    # Of three scores the second smallest: 0.2 covers one of the other half, 0.25 covers two.
    assert found.found == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found.mean_width == pytest.approx((0.4 + 0.5) / 2)
    endless = reliability.split_conformal(error, None, np.zeros(6), clusters, coverage=0.9, seed=0)
    assert endless.found == 1 and math.isinf(endless.mean_width)


def test_broken_ties_are_the_mean_of_all_orders() -> None:
    prediction, mos = np.array([1.0, 1.0, 2.0, 2.0, 2.0]), np.array([1.0, 2.0, 2.5, 3.0, 1.5])
    orders = [
        srcc(np.array([*low, *high]), mos)
        for low in itertools.permutations([0.0, 1.0])
        for high in itertools.permutations([2.0, 3.0, 4.0])
    ]
    found = reliability.tie_broken_srcc(prediction, mos, num_orders=4000, seed=0)
    assert found == pytest.approx(np.mean(orders), abs=0.02)
    assert found < srcc(prediction, mos)


def test_without_ties_nothing_is_broken() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 30))
    assert reliability.tie_broken_srcc(x, y, num_orders=3, seed=0) == pytest.approx(srcc(x, y))
