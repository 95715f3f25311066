"""The correlation of a step as a reward, against scipy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qhk.rewards.batch import ScoredGroup
from qhk.rewards.correlation import batch_correlation


def group(mos: float, *scores: float | None, dataset: str = "one") -> ScoredGroup:
    return ScoredGroup(id=f"{mos}", dataset=dataset, mos=mos, scores=scores)


def loop(groups: Sequence[ScoredGroup], statistic: str) -> list[list[float]]:
    correlate = stats.spearmanr if statistic == "srcc" else stats.pearsonr
    table = []
    for own in groups:
        members = [g for g in groups if g.dataset == own.dataset and g.parsed]
        row = []
        for score in own.scores:
            if score is None:
                row.append(0.0)
                continue
            values = [round(score if g is own else float(np.mean(g.parsed)), 9) for g in members]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = correlate(values, [g.mos for g in members])[0] if len(members) > 2 else -0.5
            row.append(0.0 if np.isnan(found) else float(found))
        table.append(row)
    return table


quarters = st.integers(4, 20).map(lambda value: value / 4)
batches = st.lists(
    st.builds(
        lambda mos, row, dataset: group(mos, *row, dataset=dataset),
        st.sampled_from([1.0, 2.0, 2.5, 3.0, 4.25]),
        st.lists(st.one_of(st.none(), quarters), min_size=3, max_size=3),
        st.sampled_from(["one", "two"]),
    ),
    min_size=1,
    max_size=7,
)


@given(batches, st.sampled_from(["srcc", "plcc"]))
def test_scipy_gives_the_same(groups: list[ScoredGroup], statistic: Literal["srcc", "plcc"]) -> None:
    found = batch_correlation(groups, statistic=statistic, alone=-0.5)
    for row, expected in zip(found, loop(groups, statistic), strict=True):
        assert row == pytest.approx(expected, abs=1e-7)


def test_an_answer_that_mends_the_order_earns_more() -> None:
    groups = [group(1.0, 1.0, 5.0), group(2.0, 2.0, 2.0), group(3.0, 3.0, 3.0), group(4.0, 4.0, 4.0)]
    right, wrong = batch_correlation(groups, statistic="srcc", alone=0.0)[0]
    assert right == 1.0 and wrong == pytest.approx(-0.2)
