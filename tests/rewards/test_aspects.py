"""Rewards of sub-scores: hand-worked numbers, and the released accuracy of which they are a part."""

from __future__ import annotations

import numpy as np
import pytest

from qhk.rewards.aspects import response_penalty, triplet_balance
from qhk.rewards.batch import ScoredGroup
from qhk.rewards.preresq import pairwise_score_and_ranking, rank_to_ground_truth, triplet_ranking

ASPECTS = [
    [
        (4.38, 4.03, 2.68, 2.04, 3.05),
        (2.62, 4.14, 2.21, 2.91, 3.33),
        (4.63, 3.02, 2.13, 4.02, 3.47),
    ],
    [
        (2.00, 4.64, 4.93, 4.24, 4.61),
        (2.24, 3.92, 4.60, 3.74, 2.89),
        (1.40, 2.74, 3.44, 4.65, 4.87),
    ],
    [
        (2.91, 4.46, 2.04, 4.22, 3.19),
        (1.06, 3.88, 2.60, 4.30, 3.67),
        (1.00, 2.97, 4.47, 1.98, 2.30),
    ],
]
RELEASED = [[0.40964, 0.41233, 0.31403], [0.31345, 0.35278, 0.36960], [0.38716, 0.37038, 0.26888]]


def test_the_parts_add_up_to_the_released_accuracy() -> None:
    groups = [
        ScoredGroup(id="", dataset="one", mos=mos, scores=tuple(float(np.mean(row)) for row in answers))
        for mos, answers in zip((3.1, 2.2, 4.05), ASPECTS, strict=True)
    ]
    pairwise = np.array(pairwise_score_and_ranking(groups, wrong="release", alone=0.0))
    triplet = np.array(triplet_ranking(groups, align="index", alone=0.0))
    rank = np.array(rank_to_ground_truth(groups, near=0.02))
    penalty = [[response_penalty(row, deviation=0.5, strength=0.5) for row in answers] for answers in ASPECTS]
    balance = [triplet_balance(answers, margin=0.05, strength=0.5, skip_last=True) for answers in ASPECTS]
    accuracy = (0.375 * pairwise - penalty + 0.5 * np.array(balance) + 0.125 * triplet + rank) / 3
    np.testing.assert_allclose(accuracy, RELEASED, atol=1e-5)


@pytest.mark.parametrize(
    ("aspects", "penalty"), [((3.0,) * 5, 0.25), ((2.75, 3.25), 0.125), ((2.0, 4.0), 0.0), ((1.0,), 0.25)]
)
def test_equal_sub_scores_are_penalised(aspects: tuple[float, ...], penalty: float) -> None:
    assert response_penalty(aspects, deviation=0.5, strength=0.5) == pytest.approx(penalty, abs=1e-12)


def test_the_median_and_its_neighbours_gain() -> None:
    answers = [(1.0, 9.0), (2.0, 9.0), (2.04, 9.0)]
    how = {"margin": 0.05, "strength": 0.5}
    assert triplet_balance(answers, skip_last=True, **how) == [0.0, 0.5, 0.5]
    assert triplet_balance(answers, skip_last=False, **how) == [0.25, 0.5, 0.5]
    four = [(1.0, 0.0), (2.0, 0.0), (3.0, 0.0), (4.0, 0.0)]
    # Triplets: 123 124 134 234; the outer two are never in the middle, the inner two in 2 of their 3.
    assert triplet_balance(four, skip_last=True, **how) == pytest.approx([0.0, 1 / 3, 1 / 3, 0.0])


def test_fewer_than_three_answers_have_no_balance() -> None:
    assert triplet_balance([(1.0, 2.0)] * 2, margin=0.05, strength=0.5, skip_last=True) == [0.0, 0.0]
