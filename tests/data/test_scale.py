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


def fit(*scores: float | tuple[float, float | None], **changes: object) -> Scale:
    settings: dict[str, object] = {
        "name": "x",
        "normalisation": "whole_set",
        "bounds": None,
        "higher_is_better": True,
        "splits": ["train"] * len(scores),
    } | changes
    pairs = [score if isinstance(score, tuple) else (score, None) for score in scores]
    return fit_scale(pairs, settings.pop("splits"), **settings)  # type: ignore[arg-type]


def test_whole_set_uses_the_extremes_and_given_the_bounds() -> None:
    seen = fit(3.0, 2.0, 6.0, bounds=(0.0, 10.0))
    assert (seen.low, seen.high) == (2.0, 6.0)
    given = fit(3.0, 2.0, normalisation="given", bounds=(0.0, 10.0))
    assert (given.low, given.high) == (0.0, 10.0)


def test_train_part_uses_the_extremes_of_training_alone() -> None:
    splits = ["train", "test", "train", None, "validation"]
    scale = fit(3.0, 9.0, 5.0, 0.0, 4.0, normalisation="train_part", splits=splits)
    assert (scale.low, scale.high) == (3.0, 5.0)
    assert scale.mos(9.0) == 13.0  # parts that are not trained on may reach beyond the scale


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_published_pairs_give_the_map_of_the_whole_set(higher_is_better: bool) -> None:
    true = Scale(low=10.0, high=50.0, higher_is_better=higher_is_better)
    pairs = [(score, true.mos(score)) for score in (22.0, 18.0, 43.0)]
    found = fit(*pairs, normalisation="published", higher_is_better=higher_is_better)
    assert (found.low, found.high) == pytest.approx((10.0, 50.0), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "changes", "message"),
    [
        ([1.0, 2.0], {"normalisation": "given"}, r"dataset\.x\.bounds is null"),
        ([2.0, 2.0], {}, r"run from 2\.0 to 2\.0"),
        ([1.0], {"normalisation": "given", "bounds": (3.0, 1.0)}, "low < high"),
        ([1.0, 2.0], {"normalisation": "train_part", "splits": ["test"] * 2}, "has no training part"),
        ([(1.0, 1.0), (2.0, None)], {"normalisation": "published"}, "1 of 2 rows have no normalised score"),
        ([(1.0, 5.0), (2.0, 1.0)], {"normalisation": "published"}, "check higher_is_better"),
        (
            [(0.0, 1.0), (1.0, 3.1), (2.0, 5.0)],
            {"normalisation": "published"},
            r"native score 1\.0 has the normalised score 3\.1, the map of the others gives 3\.0",
        ),
    ],
)
def test_refusals(scores: list[object], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(*scores, **changes)  # type: ignore[arg-type]
