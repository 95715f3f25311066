"""Distinct scores, entropy and spread, by hand."""

from __future__ import annotations

import math

import pytest

from qhk.statistics import diversity


def test_distinct_scores() -> None:
    assert diversity.num_distinct([3.5, 3.50, 4.0]) == 2
    assert diversity.num_distinct([]) == 0


def test_runs_of_words_by_hand() -> None:
    texts = ["Blurred and noisy", "blurred AND dark", "blurred"]  # four pairs, "blurred and" twice
    assert diversity.distinct_runs(texts, length=2) == 3 / 4
    assert diversity.repeated_runs(["a b a b a", "a b c", "a b"], length=3) == pytest.approx(1 / 6)
    assert math.isnan(diversity.distinct_runs(["one"], length=2))
    assert math.isnan(diversity.repeated_runs([], length=3))


def test_equal_means_are_one_score() -> None:
    means = [math.fsum(t) / 5 for t in ((3.05, 2.14, 4.51, 2.41, 2.83), (3.14, 3.72, 1.11, 3.54, 3.43))]
    assert means[0] != means[1] and diversity.num_distinct(means) == 1
    assert diversity.score_entropy([means]) == 0.0


def test_entropy_pools_images_and_skips_failures() -> None:
    # 3 three times, 4 once: -(3/4 ln 3/4 + 1/4 ln 1/4)
    samples = [[3.0, 3.0], [None, 3.0], [4.0, None]]
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert diversity.score_entropy(samples) == pytest.approx(expected)


def test_entropy_at_its_ends() -> None:
    assert diversity.score_entropy([[2.0], [2.0]]) == 0.0
    assert math.copysign(1, diversity.score_entropy([[2.0]])) == 1
    assert diversity.score_entropy([[1.0, 2.0], [3.0, 4.0]]) == pytest.approx(math.log(4))
    assert math.isnan(diversity.score_entropy([[None], []]))


def test_spread_is_the_mean_unbiased_deviation() -> None:
    # deviations sqrt(2) and 0; the third image has one parsed sample and no spread
    samples = [[1.0, 3.0], [2.0, 2.0, None], [None, 4.0]]
    assert diversity.within_image_spread(samples) == pytest.approx(math.sqrt(2) / 2)
    assert math.isnan(diversity.within_image_spread([[1.0]]))
