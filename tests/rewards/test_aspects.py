"""Rewards of sub-scores: hand-worked numbers, the definition once more with loops, and what never matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhk.rewards.aspects import response_penalty, triplet_balance
from qhk.rewards.batch import ScoredGroup
from qhk.types import Answer, Completion, Example

MakeExample = Callable[[float], Example]
Aspects = tuple[float, ...]
NUMBERS = st.integers(4, 20).map(lambda value: value / 4)
ANSWERS = st.lists(st.one_of(st.just(()), st.tuples(NUMBERS, NUMBERS, NUMBERS)), min_size=1, max_size=6)


def group(*answers: Aspects) -> ScoredGroup:
    scores = tuple(float(np.mean(aspects)) if aspects else None for aspects in answers)
    return ScoredGroup(id="picture", dataset="one", mos=3.0, scores=scores, aspects=answers)


def balance(*answers: Aspects, margin: float = 0.05, skip_last: bool = False) -> list[float]:
    (values,) = triplet_balance([group(*answers)], margin=margin, skip_last=skip_last)
    return values


def penalty(aspects: Aspects, example: Example, deviation: float = 0.5) -> float:
    score = float(np.mean(aspects)) if aspects else None
    completion = Completion(
        text="", answer=Answer(score=score, aspects=aspects), num_tokens=1, truncated=False
    )
    return response_penalty(completion, example, deviation=deviation)


@pytest.mark.parametrize(
    ("aspects", "value"),
    [((3.0,) * 5, -0.5), ((2.75, 3.25), -0.25), ((2.0, 4.0), 0.0), ((1.0,), -0.5), ((), -0.5)],
)
def test_equal_sub_scores_cost(make_example: MakeExample, aspects: Aspects, value: float) -> None:
    assert penalty(aspects, make_example(3.0)) == pytest.approx(value, abs=1e-12)


@given(st.lists(NUMBERS, min_size=1, max_size=5), st.integers(-8, 8))
def test_the_penalty_sees_the_spread_alone(aspects: list[float], shift: int) -> None:
    example = Example(id="", dataset="", image=None, mos=3.0, mos_native=3.0, higher_is_better=True)  # type: ignore[arg-type]
    plain = penalty(tuple(aspects), example)
    assert -0.5 <= plain <= 0.0
    assert plain == pytest.approx(-max(0.0, 0.5 - float(np.std(aspects))), abs=1e-12)
    assert penalty(tuple(aspect + shift for aspect in aspects), example) == pytest.approx(plain, abs=1e-12)
    assert penalty(tuple(sorted(aspects)), example) == pytest.approx(plain, abs=1e-12)


def test_single_scores_have_no_sub_scores(make_example: MakeExample) -> None:
    completion = Completion(text="", answer=Answer(score=3.0), num_tokens=1, truncated=False)
    message = (
        r"^reward: response_penalty compares sub-scores, but the answers to one are single scores; remove"
    )
    with pytest.raises(ValueError, match=message):
        response_penalty(completion, make_example(3.0), deviation=0.5)
    plain = ScoredGroup(id="picture", dataset="one", mos=3.0, scores=(3.0, None))
    with pytest.raises(
        ValueError, match=r"^reward: triplet_balance compares sub-scores, but .* to picture are"
    ):
        triplet_balance([plain], margin=0.05, skip_last=False)


def test_the_median_and_its_neighbours_gain() -> None:
    answers = [(1.0, 9.0), (2.0, 9.0), (2.04, 9.0)]
    assert balance(*answers, skip_last=True) == [0.0, 1.0, 1.0]
    assert balance(*answers) == [0.5, 1.0, 1.0]
    four = [(1.0,), (2.0,), (3.0,), (4.0,)]
    # Triplets: 123 124 134 234; the outer two are never in the middle, the inner two in 2 of their 3.
    assert balance(*four) == pytest.approx([0.0, 2 / 3, 2 / 3, 0.0])


def test_the_margin_itself_is_too_far() -> None:
    answers = [(1.0,), (1.5,), (3.0,)]
    assert balance(*answers, margin=0.5) == [0.0, 1.0, 0.0]
    assert balance(*answers, margin=0.5625) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "answers", [[], [(1.0, 2.0)], [(1.0, 2.0)] * 2, [(1.0, 2.0), (), (1.0, 2.0), ()], [(), ()]]
)
def test_fewer_than_three_answers_have_no_balance(answers: list[Aspects]) -> None:
    assert balance(*answers) == [0.0] * len(answers)


def test_no_sub_score_left_is_no_balance() -> None:
    assert balance((1.0,), (1.0,), (1.0,), skip_last=True) == [0.0] * 3
    assert balance((1.0,), (1.0,), (1.0,)) == [1.0] * 3


def balance_twin(answers: Sequence[Aspects], margin: float, skip_last: bool) -> list[float]:
    """All triplets of the answers that were read, sub-score by sub-score, each sorted for its median."""
    read = [place for place, aspects in enumerate(answers) if aspects]
    gains, cases = [0] * len(answers), [0] * len(answers)
    for triplet in combinations(read, 3):
        for dimension in range(3 - skip_last):
            middle = sorted(answers[place][dimension] for place in triplet)[1]
            for place in triplet:
                gains[place] += abs(answers[place][dimension] - middle) < margin
                cases[place] += 1
    return [gain / case if case else 0.0 for gain, case in zip(gains, cases, strict=True)]


@settings(max_examples=200, deadline=None)
@given(ANSWERS, st.sampled_from([0.05, 0.25, 0.3, 1.0]), st.booleans())
def test_counting_is_what_the_loop_over_triplets_says(
    answers: list[Aspects], margin: float, skip_last: bool
) -> None:
    expected = balance_twin(answers, margin, skip_last)
    values = balance(*answers, margin=margin, skip_last=skip_last)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert all(0.0 <= value <= 1.0 for value in values)


@settings(max_examples=100, deadline=None)
@given(ANSWERS, ANSWERS, st.integers(-4, 4), st.data())
def test_groups_are_apart_and_order_never_matters(
    answers: list[Aspects], others: list[Aspects], shift: int, data: st.DataObject
) -> None:
    plain = balance(*answers)
    order = data.draw(st.permutations(range(len(answers))))
    moved = group(*[tuple(aspect + shift for aspect in answers[place]) for place in order])
    both = triplet_balance([group(*others), moved], margin=0.05, skip_last=False)
    assert both == [balance(*others), [plain[place] for place in order]]
