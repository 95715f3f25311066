"""From the predictions of one benchmark to its row of results."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qhk.evaluation.accuracy import accuracies
from qhk.evaluation.predictions import Prediction, reasoning
from qhk.evaluation.results import Measure, Moment, ResultRow
from qhk.statistics import diversity
from qhk.statistics.bootstrap import (
    RESAMPLED,
    Clusters,
    Interval,
    Statistic,
    bootstrap_interval,
    cluster_index,
    resampled_plcc,
)
from qhk.statistics.correlation import POINT_METRICS, Array, LogisticPlcc, logistic_plcc
from qhk.tasks import Task
from qhk.types import MOS_HIGH, MOS_LOW


def measure_predictions(
    predictions: Sequence[Prediction],
    *,
    task: type[Task],
    benchmark: str,
    split: str,
    protocol: str,
    miniature: bool,
    step: int,
    moment: Moment,
    readout: str,
    num_resamples: int,
    confidence: float,
    seed: int,
    on_scale: bool = True,
    seconds_per_image: float = math.nan,
) -> ResultRow:
    """Return the row of one benchmark: metrics over the parsed images, with bootstrap intervals.

    Intervals draw whole references, since a method errs alike on all copies of a scene.
    Scores are the clipped ones and mos lies on the same scale, so rmse and mae are in its units.
    Metrics: srcc, plcc (raw), plcc_fitted (after the 4-parameter logistic, see ``logistic_plcc``),
    krcc, rmse, mae with intervals; score_entropy (nats), distinct_samples and within_image_std
    without. A task answered in words has those of ``accuracies`` instead. The interval of plcc_fitted
    holds the fit of the full set fixed, so it leaves out the fit's own uncertainty (four parameters
    against hundreds of images); refitting every resample would cost a thousand fits per cell and meet
    fits that do not converge. Scores that are not ``on_scale`` mean something in their order and spacing
    alone: they have no rmse and no mae.

    Figures beside the metrics: tokens_per_image, of all samples; time/seconds_per_image, of all read-outs of
    the image together; of reasoning that was kept, distinct_pairs and repeated_triples of its words (see
    ``diversity``); and of expected scores the means over answers of answer_std, answer_entropy (nats) and
    answer_mass (see ``ScoreDistribution``).
    """
    scored = [item for item in predictions if item.clipped is not None and item.mos is not None]
    x = np.array([item.clipped for item in scored], dtype=np.float64)
    y = np.array([item.mos for item in scored], dtype=np.float64)
    clusters = cluster_index([item.reference for item in scored])
    fallback, is_step, said = "", False, [item.choice for item in predictions if item.choice is not None]
    if not task.has_scores:
        metrics = accuracies(predictions, task, num_resamples=num_resamples, confidence=confidence, seed=seed)
        distinct = len({tuple(sorted(choice.items())) for choice in said})
    else:
        fit = logistic_plcc(x, y)
        metrics = _metrics(x, y, clusters, fit, num_resamples=num_resamples, confidence=confidence, seed=seed)
        for name, value in _diversity([item.samples for item in predictions]).items():
            metrics[name] = Measure(value=value, low=math.nan, high=math.nan)
        if not on_scale:
            metrics = {name: measure for name, measure in metrics.items() if name not in ("rmse", "mae")}
        fallback, is_step, distinct = fit.fallback, fit.is_step, diversity.num_distinct(x.tolist())
    return ResultRow(
        benchmark=benchmark,
        form=task.form,
        split=split,
        protocol=protocol,
        miniature=miniature,
        step=step,
        moment=moment,
        readout=readout,
        n=len(predictions),
        n_parsed=len(scored) + len(said),
        samples=sum(item.num_samples for item in predictions),
        samples_failed=sum(item.num_failed for item in predictions),
        samples_out_of_range=sum(item.out_of_range for item in predictions),
        distinct=distinct,
        plcc_fallback=fallback,
        plcc_step=is_step,
        metrics=metrics,
        figures={
            **_distributions(predictions),
            **_wording(predictions),
            "tokens_per_image": _mean([sum(item.tokens) for item in predictions if item.tokens]),
            "time/seconds_per_image": seconds_per_image,
        },
    )


def _distributions(predictions: Sequence[Prediction]) -> dict[str, float]:
    known = [each for item in predictions for each in item.distributions if each is not None]
    values = {
        "answer_std": [each.std for each in known],
        "answer_entropy": [each.entropy for each in known],
        "answer_mass": [each.mass for each in known],
    }
    return {name: _mean(found) for name, found in values.items()} if known else {}


def _wording(predictions: Sequence[Prediction]) -> dict[str, float]:
    thoughts = [reasoning(text) for item in predictions for text in item.texts or ()]
    values = {
        "distinct_pairs": diversity.distinct_runs(thoughts, length=2),
        "repeated_triples": diversity.repeated_runs(thoughts, length=3),
    }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _metrics(
    x: Array,
    y: Array,
    clusters: Clusters,
    fit: LogisticPlcc,
    *,
    num_resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Measure]:
    """Return correlations and errors with their intervals; no interval where there is no value."""

    def measure(value: float, statistic: Statistic, prediction: Array) -> Measure:
        interval = Interval(math.nan, math.nan)
        if not math.isnan(value):
            interval = bootstrap_interval(
                statistic,
                prediction,
                y,
                clusters=clusters,
                num_resamples=num_resamples,
                confidence=confidence,
                seed=seed,
            )
        return Measure(value=value, low=interval.low, high=interval.high)

    metrics = {name: measure(point(x, y), RESAMPLED[name], x) for name, point in POINT_METRICS.items()}
    metrics["plcc_fitted"] = measure(fit.value, resampled_plcc, fit.fitted)
    return metrics


def _diversity(samples: Sequence[Sequence[float | None]]) -> dict[str, float]:
    """Return how varied single samples are, as the model said them; their spread is of clipped scores."""
    parsed = [score for image in samples for score in image if score is not None]
    clipped = [
        [None if score is None else min(MOS_HIGH, max(MOS_LOW, score)) for score in row] for row in samples
    ]
    return {
        "score_entropy": diversity.score_entropy(samples),
        "distinct_samples": float(diversity.num_distinct(parsed)),
        "within_image_std": diversity.within_image_spread(clipped),
    }
