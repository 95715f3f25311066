"""Originals against their copies, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qhk.statistics.perturbation import compare_pairs, strength_and_drop


def compared(original: list[float], copy: list[float], clusters: list[int] | None = None) -> dict[str, float]:
    found = compare_pairs(
        np.array(original),
        np.array(copy),
        np.array(clusters or range(len(original))),
        num_resamples=200,
        confidence=0.95,
        seed=0,
    )
    return {name: value for name, (value, _) in found.__dict__.items()}


def test_shares_and_drop_by_hand() -> None:
    found = compared([5, 4, 3, 2], [4, 4, 3.5, 1])
    assert found == {"above": (1 + 0.5 + 0 + 1) / 4, "drop": (1 + 0 - 0.5 + 1) / 4, "unchanged": 0.25}


def test_a_scorer_that_sees_nothing_is_at_chance() -> None:
    assert compared([3, 3, 3], [3, 3, 3 + 1e-12]) == {
        "above": 0.5,
        "drop": pytest.approx(0.0, abs=1e-12),
        "unchanged": 1.0,
    }


def test_intervals_draw_whole_references() -> None:
    """Ten copies of each of two references that disagree: the interval reaches from one to the other."""
    original, copy = np.repeat([4.0, 2.0], 10), np.repeat([3.0, 3.0], 10)
    wide, narrow = (
        compare_pairs(original, copy, clusters, num_resamples=200, confidence=0.95, seed=0).above[1]
        for clusters in (np.repeat([0, 1], 10), np.arange(20))
    )
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert 0.2 < narrow.low < 0.5 < narrow.high < 0.8


def test_no_pairs_are_no_number() -> None:
    assert all(math.isnan(value) for value in compared([], []).values())


def test_strength_and_drop() -> None:
    steps = np.array([1.0, 2, 3, 1, 2, 3])
    assert strength_and_drop(steps, np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.3])) == pytest.approx(1.0)
    assert strength_and_drop(steps, -steps) == pytest.approx(-1.0)
    # Ranks 1.5 1.5 | 3.5 3.5 | 5.5 5.5 against 1, 3, 5 and 2, 6, 4, by Pearson.
    assert strength_and_drop(steps, np.array([0.1, 0.3, 0.5, 0.2, 0.6, 0.4])) == pytest.approx(
        12 / np.sqrt(16 * 17.5)
    )
    assert math.isnan(strength_and_drop(steps, np.zeros(6)))
