"""What the spread of samples and the certainty of opinions say, on predictions whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from qhk.evaluation.predictions import Prediction
from qhk.evaluation.reliability import MAX_PAIRED, measure_reliability, sparsification, why_no_opinions
from qhk.statistics.opinion import analyse_pairs


def predictions(
    count: int = 60, *, samples: int = 2, mos_std: float | None = 0.5, off: float = 0.0
) -> list[Prediction]:
    """Return predictions whose two samples lie as far apart as their mean is from the opinion."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        mos, error = float(rng.uniform(2, 4)), float(rng.uniform(0.05, 0.9))
        mean = mos + error + off
        values = (mean - error, mean + error)[:samples] if samples > 1 else (mean,)
        found.append(
            Prediction(
                id=str(number), mos=mos, score=mean, clipped=mean, samples=values, out_of_range=0, texts=None,
                mos_std=mos_std,
            )
        )  # fmt: skip
    return found


def test_a_spread_that_tells_errors() -> None:
    found = measure_reliability(predictions(), ratings=None)
    assert found["spread_and_error"] == pytest.approx(1.0)
    assert found["sparsification_area"] == pytest.approx(0.0, abs=1e-9)
    assert 0.8 < found["coverage"] <= 1.0 and 0 < found["width"] < 5
    assert set(found) == {
        "tie_broken_srcc", "spread_and_error", "sparsification_area", "coverage", "width"
    }  # fmt: skip
    assert sparsification(predictions()) is not None


def test_one_sample_has_no_spread_and_few_images_no_curve() -> None:
    assert set(measure_reliability(predictions(samples=1), ratings=None)) == {"tie_broken_srcc"}
    assert set(measure_reliability(predictions(5), ratings=None)) == {"tie_broken_srcc"}
    assert measure_reliability([], ratings=30) == {}
    assert sparsification(predictions(samples=1)) is None


def test_opinions_that_are_known_are_used() -> None:
    items = predictions()
    found = measure_reliability(items, ratings=30)
    arrays = [np.array([item.__dict__[name] for item in items]) for name in ("clipped", "mos", "mos_std")]
    pairs = analyse_pairs(*arrays, 30, confidence=0.95)
    assert found["better_auc"] == pairs.better_auc and found["different_auc"] == pairs.different_auc
    assert 0 < found["rmse_star"] < 1 and 0 < found["outlier_ratio"] < 1
    # Of one rating, whose spread is the mean's own, pairs can be told apart but Student's t has no freedom.
    alone = measure_reliability(items, ratings=1)
    assert "rmse_star" not in alone and alone["better_auc"] > found["better_auc"]


@pytest.mark.parametrize(
    ("items", "ratings", "reason"),
    [
        (predictions(20), None, "the number of ratings per image is not known"),
        (predictions(20, mos_std=None), 30, "the spread of opinions is not known"),
        (predictions(9), 30, "fewer than 10 images"),
        (predictions(1) * (MAX_PAIRED + 1), 30, "more than 5000 images"),
        (predictions(20), 30, ""),
    ],
)
def test_why_opinions_are_not_used(items: list[Prediction], ratings: float | None, reason: str) -> None:
    assert why_no_opinions(items, ratings=ratings) == reason
