"""MR-IQA's margin: hand-worked values, a loop, and what it does not ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards import margin as module
from qhk.rewards.batch import ScoredGroup


def group(mos: float, *scores: float | None, dataset: str = "one", std: float | None = None) -> ScoredGroup:
    return ScoredGroup(id=f"{mos}", dataset=dataset, mos=mos, scores=scores, mos_std=std)


def margin(groups: Sequence[ScoredGroup], **settings: Any) -> list[list[float]]:
    return module.margin(groups, **{"low": -10.0, "high": 10.0, **settings})


def loop(groups: Sequence[ScoredGroup], scale: str) -> list[list[float]]:
    """The published formula, answer by answer."""
    table = []
    for i, own in enumerate(groups):
        row = []
        for score in own.scores:
            values = []
            for j, other in enumerate(groups):
                theirs = [one for one in other.scores if one is not None]
                if score is None or i == j or other.dataset != own.dataset or not theirs:
                    continue
                s = 1.0
                if scale == "opinions":
                    s = max(math.sqrt((own.mos_std or 0) ** 2 + (other.mos_std or 0) ** 2), 1e-4)
                error = (score - sum(theirs) / len(theirs)) - (own.mos - other.mos)
                values.append(math.exp(-0.5 * error**2 / s**2))
            row.append(sum(values) / len(values) if values else 0.0)
        table.append(row)
    return table


scores = st.one_of(st.none(), st.floats(1, 5).map(lambda value: round(value, 2)))
batches = st.lists(
    st.builds(
        lambda mos, row, dataset, std: group(mos, *row, dataset=dataset, std=std),
        st.sampled_from([1.0, 2.0, 2.5, 4.25]),
        st.lists(scores, min_size=3, max_size=3),
        st.sampled_from(["one", "two"]),
        st.sampled_from([0.0, 0.3, 0.8]),
    ),
    min_size=1,
    max_size=5,
)


@given(batches, st.sampled_from(["unit", "opinions"]))
def test_a_loop_gives_the_same(groups: list[ScoredGroup], scale: Literal["unit", "opinions"]) -> None:
    for row, expected in zip(margin(groups, scale=scale, alone=0.0), loop(groups, scale), strict=True):
        assert row == pytest.approx(expected, abs=1e-12)


def test_hand_worked() -> None:
    groups = [group(3.0, 3.0, 4.0), group(2.0, 1.0, 3.0)]  # means 3.5 and 2: margins 1, 2 and -2.5, -0.5
    expected = [[1.0, math.exp(-0.5)], [math.exp(-0.5 * 1.5**2), math.exp(-0.5 * 0.5**2)]]
    assert margin(groups, scale="unit", alone=0.0) == [pytest.approx(row) for row in expected]


def test_the_scale_is_not_asked_for_but_differences_are() -> None:
    """Scores that all lie one point too high earn what true ones do; scores of half the spread do not."""
    moss, scale = (1.5, 2.5, 4.5), "unit"
    true = margin([group(mos, mos) for mos in moss], scale=scale, alone=0.0)
    high = margin([group(mos, mos + 1) for mos in moss], scale=scale, alone=0.0)
    narrow = margin([group(mos, mos / 2) for mos in moss], scale=scale, alone=0.0)
    assert true == high == [[1.0]] * 3 and max(row[0] for row in narrow) < 0.9


def test_an_image_alone_and_an_answer_that_was_not_read() -> None:
    groups = [group(3.0, 3.0, None), group(2.0, 2.0, 2.0, dataset="two"), group(4.0, None, None)]
    assert margin(groups, scale="unit", alone=0.3) == [[0.3, 0.0], [0.3, 0.3], [0.0, 0.0]]


def test_sets_without_a_spread_of_opinions_are_refused() -> None:
    with pytest.raises(ValueError, match="one does not tell for 2.0; choose scale unit"):
        margin([group(3.0, 3.0, std=0.4), group(2.0, 2.0)], scale="opinions", alone=0.0)


def test_a_score_outside_the_scale_counts_as_not_read() -> None:
    groups = [group(3.0, 3.0, 5.5), group(2.0, 0.5, 2.0)]
    inside = margin(groups, scale="unit", alone=0.0, low=1.0, high=5.0)
    assert inside == margin([group(3.0, 3.0, None), group(2.0, None, 2.0)], scale="unit", alone=0.0)
    assert inside == [[1.0, 0.0], [0.0, 1.0]]
