"""Reductions over micro-batches and ranks."""

from __future__ import annotations

import math

import pytest

from qhk.tracking.metrics import MetricSet

MEAN, MIN, MAX, LAST = (
    "train/loss/total",
    "train/uncertainty/weight/min",
    "train/uncertainty/weight/max",
    "train/optimizer/learning_rate",
)


def filled(values: list[float]) -> MetricSet:
    metrics = MetricSet()
    for value in values:
        for name in (MEAN, MIN, MAX, LAST):
            metrics.add(name, value)
    return metrics


def test_each_reduction_by_hand() -> None:
    assert filled([3.0, 1.0, 2.0]).values() == {MEAN: 2.0, MIN: 1.0, MAX: 3.0, LAST: 2.0}


def test_mean_weighs_items_not_micro_batches() -> None:
    metrics = MetricSet()
    metrics.add_sum(MEAN, 9.0, 9)
    metrics.add_sum(MEAN, 11.0, 1)
    assert metrics.values()[MEAN] == 2.0


@pytest.mark.parametrize("cut", range(6))
def test_merging_parts_equals_one_pass(cut: int) -> None:
    values = [0.5, -2.0, 8.0, 0.25, 1.0]
    left, right = filled(values[:cut]), filled(values[cut:])
    received = MetricSet.from_state(right.state())
    left.merge(received)
    assert left.values() == filled(values).values()


def test_mean_of_nothing_is_nan() -> None:
    metrics = MetricSet()
    metrics.add_sum(MEAN, 0.0, 0)
    assert math.isnan(metrics.values()[MEAN])


@pytest.mark.parametrize("values", [[math.nan, 1.0], [1.0, math.nan], [1.0, math.nan, 2.0]])
def test_nan_is_not_hidden(values: list[float]) -> None:
    found = filled(values).values()
    assert all(math.isnan(found[name]) for name in (MEAN, MIN, MAX))


def test_sums_are_for_means_and_names_are_checked() -> None:
    with pytest.raises(ValueError, match="takes values, not sums"):
        MetricSet().add_sum(MAX, 1.0, 2)
    with pytest.raises(ValueError, match="is not declared"):
        MetricSet().add("train/los", 1.0)
