from __future__ import annotations

import itertools
import random

import pytest

from qhk.pairs.review.agreement import cohen_kappa, krippendorff_alpha, pairwise_agreement


def test_kappa_of_the_textbook_table() -> None:
    both = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    # observed 35/50; chance .5 * .6 + .5 * .4 = .5
    assert cohen_kappa(both) == pytest.approx(0.4)


def test_kappa_has_no_value_without_pairs_or_without_variation() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("same", "same")] * 5) is None
    assert cohen_kappa([("same", "different")] * 5) == 0


def test_alpha_of_the_published_example() -> None:
    """Krippendorff's three coders with gaps: 0.691 for nominal data."""
    coders = ["*****34121133*3", "1*213343*******", "**21344*21133*4"]
    items = [
        {str(coder): value for coder, value in enumerate(column) if value != "*"}
        for column in zip(*coders, strict=True)
    ]
    assert krippendorff_alpha(items) == pytest.approx(0.691, abs=5e-4)


def test_alpha_equals_the_sum_over_ordered_pairs_of_ratings() -> None:
    draw = random.Random(3)
    items = [{name: draw.choice("xyz") for name in "abcd" if draw.random() < 0.7} for _ in range(40)]
    shared = [item for item in items if len(item) > 1]
    observed = sum(
        (first != second) / (len(item) - 1)
        for item in shared
        for first, second in itertools.permutations(item.values(), 2)
    )
    values = [value for item in shared for value in item.values()]
    n = len(values)
    expected = sum(first != second for first, second in itertools.permutations(values, 2)) / (n - 1)
    assert krippendorff_alpha(items) == pytest.approx(1 - observed / expected)


def test_alpha_has_no_value_without_shared_items_or_variation() -> None:
    assert krippendorff_alpha([{"a": "same"}, {"b": "different"}]) is None
    assert krippendorff_alpha([{"a": "same", "b": "same"}]) is None


def test_two_reviewers_are_compared_where_both_spoke() -> None:
    items = [{"b": "same", "a": "same"}, {"a": "same", "b": "different"}, {"a": "same"}, {"c": "same"}]
    found = {(two.first, two.second): two for two in pairwise_agreement(items)}
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (found["a", "b"].n, found["a", "b"].fraction) == (2, 0.5)
    assert (found["a", "c"].n, found["a", "c"].fraction, found["a", "c"].kappa) == (0, None, None)
