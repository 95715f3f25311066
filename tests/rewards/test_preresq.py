"""PreResQ-R1's rewards of one score: published numbers, loops over the definitions, invariances, edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhk.rewards.batch import ScoredGroup
from qhk.rewards.preresq import pairwise_score_and_ranking, rank_to_ground_truth, triplet_ranking
from qhk.tasks.aspects import average

Reward = Callable[[Sequence[ScoredGroup]], list[list[float]]]

PAIRWISE = {
    wrong: partial(pairwise_score_and_ranking, wrong=wrong, alone=0.7) for wrong in ("release", "corrected")
}
TRIPLET = {align: partial(triplet_ranking, align=align, alone=0.7) for align in ("index", "rank")}
ONE_WAY = partial(triplet_ranking, align="index", alone=0.7, ties="one_way")
NEAR = partial(rank_to_ground_truth, near=0.02)
BY_VALUE: list[Reward] = [PAIRWISE["release"], PAIRWISE["corrected"], TRIPLET["rank"], NEAR]


def group(mos: float, *scores: float | None, dataset: str = "one") -> ScoredGroup:
    return ScoredGroup(id=f"{mos}", dataset=dataset, mos=mos, scores=scores)


def make_batches(scores: st.SearchStrategy[float | None]) -> st.SearchStrategy[list[ScoredGroup]]:
    return st.lists(
        st.builds(
            lambda mos, values, dataset: group(mos, *values, dataset=dataset),
            st.sampled_from([1.0, 2.0, 2.5, 3.0, 4.25]),
            st.lists(scores, min_size=4, max_size=4),
            st.sampled_from(["one", "two"]),
        ),
        min_size=1,
        max_size=6,
    )


numbers = st.integers(4, 20).map(lambda value: value / 4)
batches = make_batches(st.one_of(st.none(), numbers))


@pytest.mark.parametrize(
    ("mos", "scores", "released", "corrected"),
    [
        ((2, 4), (2, 4), 1.0, 1.0),
        ((2, 4), (3, 3.5), 0.7559, 0.7559),
        ((2, 4), (5, 1), 0.8660, 0.25),
        ((3, 3), (2.5, 3.5), 1.0, 0.7),
        ((3, 3), (2.5, 2.5), 0.0, 0.7),
        ((3, 3), (3, 3), 1.0, 0.7),
        ((2, 4), (3, 3), math.sqrt(0.5), math.sqrt(0.5) / 2),
    ],
)
def test_pairs(
    mos: tuple[float, float], scores: tuple[float, float], released: float, corrected: float
) -> None:
    groups = [group(y, score) for y, score in zip(mos, scores, strict=True)]
    assert PAIRWISE["release"](groups) == [[pytest.approx(released, abs=5e-5)]] * 2
    assert PAIRWISE["corrected"](groups) == [[pytest.approx(corrected, abs=5e-5)]] * 2


def test_only_the_release_rewards_a_larger_error_in_the_wrong_order() -> None:
    def earned(how: str, error: float) -> float:
        return PAIRWISE[how]([group(2.0, 3.1 + error), group(4.0, 3.0)])[0][0]

    errors = [0.0, 0.5, 1.0, 1.9]
    assert [earned("release", e) for e in errors] == sorted(earned("release", e) for e in errors)
    falling = [earned("corrected", e) for e in errors]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] < PAIRWISE["corrected"]([group(2.0, 2.9), group(4.0, 3.0)])[0][0]


def test_answers_of_the_same_rank_meet() -> None:
    crossed = PAIRWISE["release"]([group(2.0, 5.0, 2.0), group(4.0, 4.0, 5.0)])
    # ranks: 2 meets 4 (perfect: 1), 5 meets 5 (d = 2, errors 3 and 1, not the order 2 < 4)
    assert crossed == [[pytest.approx(math.sqrt(2 / 3)), 1.0], [1.0, pytest.approx(math.sqrt(2 / 3))]]


def test_an_image_with_fewer_scores_meets_the_nearest_relative_rank() -> None:
    (few, many) = PAIRWISE["corrected"]([group(2.0, None, 2.0, None), group(4.0, 4.0, 3.5, 4.5)])
    # The single 2.0 meets the middle 4.0; all three others meet 2.0.
    assert few == [0.0, 1.0, 0.0]
    assert many == [pytest.approx(value) for value in (1.0, math.sqrt(2 / 2.5), math.sqrt(2 / 2.5))]


def triplet_twin(groups: Sequence[ScoredGroup], align: str) -> list[list[float]]:
    """All parsed: for every answer, all pairs of others, all three comparisons in both directions."""
    if align == "rank":
        groups = [group(g.mos, *sorted(g.parsed), dataset=g.dataset) for g in groups]
    table = []
    for i, own in enumerate(groups):
        others = [z for z, g in enumerate(groups) if z != i and g.dataset == own.dataset]
        row = []
        for j in range(len(own.scores)):
            shares = []
            for a, b in combinations(others, 2):
                for first, second in ((i, a), (i, b), (a, b), (a, i), (b, i), (b, a)):
                    x, y = groups[first], groups[second]
                    shares.append((x.scores[j] > y.scores[j]) == (x.mos > y.mos))  # type: ignore[operator]
            row.append(float(np.mean(shares)) if shares else 0.7)
        table.append(row)
    return table


@pytest.mark.parametrize("align", ["index", "rank"])
@settings(max_examples=40, deadline=None)
@given(groups=make_batches(numbers))
def test_triplets_are_what_their_definition_says(align: str, groups: list[ScoredGroup]) -> None:
    expected = triplet_twin(groups, align)
    if align == "rank":
        for own, row in zip(groups, expected, strict=True):
            ranked = np.array(sorted(own.parsed))
            row[:] = [float(np.mean(np.array(row)[ranked == score])) for score in own.parsed]
    np.testing.assert_allclose(np.array(TRIPLET[align](groups)), np.array(expected), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(groups=make_batches(st.one_of(st.none(), st.sampled_from([2.0, 3.0, 4.0]))))
def test_the_release_asks_one_question_of_a_pair(groups: list[ScoredGroup]) -> None:
    """With loops over triplets: is the first the greater, by score as by opinion?"""
    for i, (own, row) in enumerate(zip(groups, ONE_WAY(groups), strict=True)):
        for j, value in enumerate(row):
            if own.scores[j] is None:
                assert value == 0.0
                continue
            others = [
                z
                for z, g in enumerate(groups)
                if z != i and g.dataset == own.dataset and g.scores[j] is not None
            ]
            shares = []
            for first, second in combinations(others, 2):
                for p, q in ((i, first), (i, second), (first, second)):
                    x, y = groups[p], groups[q]
                    shares.append((x.scores[j] > y.scores[j]) == (x.mos > y.mos))  # type: ignore[operator]
            assert value == pytest.approx(np.mean(shares) if shares else 0.7, abs=1e-12)


def test_ties_of_triplets_by_hand() -> None:
    """Images a, b, c of opinions 2, 3, 3; what is asked is "greater?", so that a tie answers like "less"."""
    groups = [group(2.0, 2.0, 4.0), group(3.0, 3.0, 3.0), group(3.0, 3.0, 4.0)]
    # First answers 2, 3, 3: all agree. Second ones 4, 3, 4:
    # of a, 4 > 3 against 2 > 3 (0), 4 > 4 against 2 > 3 (1), and of b and c 3 > 4 against 3 > 3 (1);
    # of b, 3 > 4 against 3 > 2 (0), 3 > 4 against 3 > 3 (1), and of a and c 4 > 4 against 2 > 3 (1);
    # of c, 4 > 4 against 3 > 2 (0), 4 > 3 against 3 > 3 (0), and of a and b 4 > 3 against 2 > 3 (0).
    assert ONE_WAY(groups) == [
        [1.0, pytest.approx(2 / 3)], [1.0, pytest.approx(2 / 3)], [1.0, 0.0]
    ]  # fmt: skip
    # Halves: a and b are turned (0), the tie of scores (a, c) and that of opinions (b, c) count 1/2 each.
    assert TRIPLET["index"](groups) == [[1.0, pytest.approx(1 / 3)]] * 3


def test_triplets_leave_out_unread_answers() -> None:
    groups = [group(1.0, 1.0, 1.0), group(2.0, 2.0, None), group(3.0, 3.0, 3.0)]
    assert TRIPLET["index"](groups) == [[1.0, 0.7], [1.0, 0.0], [1.0, 0.7]]
    assert TRIPLET["rank"](groups) == [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("distance", "value"), [(1, 0.8669), (2, 0.7515), (3, 0.6514), (4, 0.5647), (5, 0.4895), (6, 0.4244)]
)
def test_places_from_the_opinion(distance: int, value: float) -> None:
    scores = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    assert NEAR([group(4.0, *scores)])[0][-distance] == pytest.approx(value, abs=5e-5)
    mirrored = [5 - score for score in scores]
    assert NEAR([group(1.0, *mirrored)])[0][-distance] == pytest.approx(value, abs=5e-5)


def test_near_scores_earn_all_and_equal_ones_share() -> None:
    near, low, high = NEAR([group(3.0, 3.01, 2.0, 4.0)])[0]
    assert (near, low, high) == (1.0, pytest.approx(math.exp(-1 / 4)), pytest.approx(math.exp(-2 / 4)))
    twice = (math.exp(-1 / 3) + math.exp(-2 / 3)) / 2
    assert NEAR([group(3.0, 2.0, 2.0)]) == [[pytest.approx(twice)] * 2]
    exact, below, above, unread = NEAR([group(3.0, 3.0, 2.0, 4.0, None)])[0]
    assert (exact, unread) == (1.0, 0.0)
    assert below == above == pytest.approx(math.exp(-1 / 4))


@pytest.mark.parametrize("reward", [*BY_VALUE, TRIPLET["index"]])
@settings(max_examples=40, deadline=None)
@given(groups=batches, data=st.data())
def test_order_never_matters_and_values_stay_in_range(
    reward: Reward, groups: list[ScoredGroup], data: st.DataObject
) -> None:
    images = data.draw(st.permutations(range(len(groups))))
    # Index-aligned triplets follow the completions only where all images move alike.
    one = data.draw(st.permutations(range(4)))
    own = [one if reward is TRIPLET["index"] else data.draw(st.permutations(range(4))) for _ in groups]
    moved = [
        group(groups[i].mos, *[groups[i].scores[place] for place in own[i]], dataset=groups[i].dataset)
        for i in images
    ]
    plain = reward(groups)
    np.testing.assert_allclose(
        np.array(reward(moved)), np.array([[plain[i][place] for place in own[i]] for i in images]), atol=1e-12
    )
    for source, row in zip(groups, plain, strict=True):
        assert all(0.0 <= value <= 1.0 + 1e-12 for value in row)
        assert all(value == 0 for value, score in zip(row, source.scores, strict=True) if score is None)


@pytest.mark.parametrize("reward", [*PAIRWISE.values(), *TRIPLET.values()])
def test_strangers_and_lonely_images(reward: Reward) -> None:
    assert reward([group(3.0, 3.0, None)]) == [[0.7, 0.0]]
    assert reward([group(3.0, None), group(2.0, None)]) == [[0.0], [0.0]]
    assert reward([]) == []
    groups = [group(1.0, 1.0, 2.0), group(2.0, 1.5, 1.5), group(4.0, 3.0, 1.0)]
    stranger = group(2.5, 5.0, 1.0, dataset="two")
    plain = reward(groups)
    assert reward([stranger, *groups]) == [[0.7, 0.7], *plain]


def test_two_images_make_no_triplet() -> None:
    for reward in TRIPLET.values():
        assert reward([group(1.0, 2.0, 3.0), group(2.0, 2.5, 1.5)]) == [[0.7, 0.7], [0.7, 0.7]]


TIED = ((3.05, 2.14, 4.51, 2.41, 2.83), (3.14, 3.72, 1.11, 3.54, 3.43))
"""Two answers whose sub-scores both mean 2.988, which floating point tells apart."""


def test_equal_means_are_a_tie_whatever_their_terms() -> None:
    """By hand: of two images with opinions 2 and 4 that both got 2.988, S = 2 / (2 + 0.988 + 1.012) = 1/2.

    Their order is wrong in both forms, whichever answer is whose.
    """
    one, other = (average(aspects).score for aspects in TIED)
    assert one is not None and other is not None and one != other
    for scores in ((one, other), (other, one), (2.988, 2.988)):
        for wrong, earned in (("release", math.sqrt(0.5)), ("corrected", math.sqrt(0.5) / 2)):
            assert (
                PAIRWISE[wrong]([group(2.0, scores[0]), group(4.0, scores[1])])
                == [[pytest.approx(earned, abs=1e-12)]] * 2
            )
        # the third image is in its place towards both, and those two are half right: (1 + 1 + 1/2) / 3
        for reward in TRIPLET.values():
            rows = reward([group(2.0, scores[0]), group(4.0, scores[1]), group(5.0, 5.0)])
            assert rows == [[pytest.approx(5 / 6, abs=1e-12)]] * 3
        # the release asks "greater?", which is answered wrongly of the second image and the first alone
        assert ONE_WAY([group(2.0, scores[0]), group(4.0, scores[1]), group(5.0, 5.0)]) == [
            [1.0], [pytest.approx(2 / 3)], [1.0]
        ]  # fmt: skip
        opinions = [group(scores[0], 3.0), group(scores[1], 3.0), group(5.0, 5.0)]
        assert ONE_WAY(opinions) == [[1.0]] * 3
    assert PAIRWISE["corrected"]([group(one, 3.0), group(other, 3.1)]) == [[0.7], [0.7]]


def test_answers_of_equal_means_share_what_their_places_earn() -> None:
    one, other = (average(aspects).score for aspects in TIED)
    # what rounding alone puts beyond the opinion stands at it, and not between it and the other score
    assert NEAR([group(min(one, other), max(one, other), 4.0)])[0][1] == math.exp(-1 / 3)
    assert NEAR([group(max(one, other), min(one, other), 1.0)])[0][1] == math.exp(-1 / 3)
    for reward in BY_VALUE:
        rows = reward([group(2.0, one, 4.0, other), group(3.5, 2.0, 3.0, 3.25), group(4.5, 2.5, 3.0, 5.0)])
        assert rows[0][0] == rows[0][2]
