from __future__ import annotations

import pytest

from qhk.data.scale import Scale, fit_scale


def test_mos_by_hand() -> None:
    up = Scale(low=0.0, high=100.0, higher_is_better=True)
    assert [up.mos(score) for score in (0.0, 25.0, 100.0)] == [1.0, 2.0, 5.0]
    down = Scale(low=0.0, high=1.0, higher_is_better=False)
    assert [down.mos(score) for score in (0.0, 0.25, 1.0)] == [5.0, 4.0, 1.0]
    assert up.deviation(25.0) == 1.0
    assert down.deviation(None) is None


def test_whole_set_uses_the_extremes_and_given_the_bounds() -> None:
    seen = fit_scale(
        [3.0, 2.0, 6.0], name="x", normalisation="whole_set", bounds=(0.0, 10.0), higher_is_better=True
    )
    assert (seen.low, seen.high) == (2.0, 6.0)
    given = fit_scale([3.0, 2.0], name="x", normalisation="given", bounds=(0.0, 10.0), higher_is_better=True)
    assert (given.low, given.high) == (0.0, 10.0)


@pytest.mark.parametrize(
    ("scores", "normalisation", "bounds", "message"),
    [
        ([1.0, 2.0], "given", None, r"dataset\.x\.bounds is null"),
        ([2.0, 2.0], "whole_set", None, r"run from 2\.0 to 2\.0"),
        ([1.0], "given", (3.0, 1.0), "low < high"),
        ([1.0], "other", None, "whole_set or given, got 'other'"),
    ],
)
def test_refusals(
    scores: list[float], normalisation: str, bounds: tuple[float, float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_scale(scores, name="x", normalisation=normalisation, bounds=bounds, higher_is_better=True)
