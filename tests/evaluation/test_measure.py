"""One benchmark's row from its predictions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.predictions import Prediction, make_prediction
from qhk.evaluation.results import Moment, ResultRow
from qhk.tasks import find_form
from tests.evaluation.builders import completions, example
from tests.tasks.builders import task_of


def predicted(samples: list[list[float | None]], mos: list[float]) -> list[Prediction]:
    return [
        make_prediction(
            example(str(place), value), completions(scores), task=task_of("score", "strict"), keep_texts=False
        )
        for place, (scores, value) in enumerate(zip(samples, mos, strict=True))
    ]


def measured(predictions: list[Prediction], *, num_resamples: int = 200, seed: int = 0) -> ResultRow:
    return measure_predictions(
        predictions,
        task=find_form("score"),
        benchmark="koniq",
        split="test",
        protocol="whole set",
        miniature=True,
        step=7,
        moment=Moment.AFTER,
        readout="mean2",
        num_resamples=num_resamples,
        confidence=0.95,
        seed=seed,
    )


def noisy(n: int = 50) -> tuple[list[list[float | None]], list[float]]:
    rng = np.random.default_rng(0)
    mos = rng.uniform(1.5, 4.5, n).tolist()
    samples = [[round(value + rng.normal(0, 0.5), 1) for _ in range(2)] for value in mos]
    return samples, mos


def test_counts_and_values_over_parsed_images_only() -> None:
    samples, mos = noisy()
    with_failures = [*samples, [None, None], [None, 9.0]]
    row = measured(predicted(with_failures, [*mos, 1.0, 4.9]))
    assert (row.n, row.n_parsed, row.samples, row.samples_failed) == (52, 51, 104, 3)
    assert row.samples_out_of_range == sum(not 1 <= s <= 5 for pair in samples for s in pair) + 1
    scores = [np.clip(pair, 1, 5).mean().round(9) for pair in samples] + [5.0]
    expected = stats.spearmanr(scores, [*mos, 4.9]).statistic
    assert row.metrics["srcc"].value == pytest.approx(expected, abs=1e-12)
    assert row.distinct == len(set(scores))
    assert row.key == ("koniq", 7, Moment.AFTER, "mean2")


def test_every_interval_holds_its_value() -> None:
    row = measured(predicted(*noisy()))
    for name in ("srcc", "plcc", "plcc_fitted", "krcc", "rmse", "mae"):
        measure = row.metrics[name]
        assert measure.low < measure.value < measure.high, name
    assert row.plcc_fallback == ""
    for name in ("score_entropy", "distinct_samples", "within_image_std"):
        assert row.metrics[name].value > 0 and math.isnan(row.metrics[name].low)


def test_a_fit_that_is_a_step_is_in_the_row() -> None:
    samples, mos = noisy()
    assert not measured(predicted(samples, mos)).plcc_step
    scores = np.clip(np.mean(samples, axis=1), 1, 5)
    assert measured(predicted(samples, np.where(scores > np.median(scores), 4.0, 2.0).tolist())).plcc_step


def test_seed_decides_the_intervals() -> None:
    predictions = predicted(*noisy())
    assert measured(predictions, seed=1) == measured(predictions, seed=1)
    assert measured(predictions, seed=1).metrics["srcc"] != measured(predictions, seed=2).metrics["srcc"]


def test_constant_prediction_is_nan_with_its_errors_kept() -> None:
    row = measured(predicted([[3.0, 3.0]] * 4, [1.0, 2.0, 3.0, 4.0]))
    assert row.distinct == 1
    for name in ("srcc", "plcc", "plcc_fitted", "krcc"):
        assert math.isnan(row.metrics[name].value) and math.isnan(row.metrics[name].low)
    assert row.metrics["mae"].value == 1.0
    assert row.metrics["score_entropy"].value == 0.0
    assert row.plcc_fallback == "no correlation"


def test_nothing_parsed_is_a_row_of_nan() -> None:
    row = measured(predicted([[None], [None], [None]], [1.0, 2.0, 3.0]))
    assert (row.n, row.n_parsed, row.distinct) == (3, 0, 0)
    assert all(math.isnan(row.metrics[name].value) for name in row.metrics if name != "distinct_samples")


def test_the_wording_of_reasoning_that_was_kept() -> None:
    texts = [
        "<think>blurred and noisy</think><answer>2</answer>",
        "<think>so so so so</think><answer>1</answer>",
    ]
    items = [
        replace(one, texts=(text,)) for one, text in zip(predicted([[2], [1]], [2, 1]), texts, strict=True)
    ]
    figures = measured(items).figures
    assert (figures["distinct_pairs"], figures["repeated_triples"]) == (3 / 5, (0 + 1 / 2) / 2)
    assert "distinct_pairs" not in measured(predicted(*noisy(5))).figures
