"""How often answers in words are right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qhk.evaluation.predictions import Prediction
from qhk.evaluation.results import Measure
from qhk.statistics.bootstrap import bootstrap_interval, cluster_index, resampled_mean
from qhk.tasks import Task


def accuracies(
    predictions: Sequence[Prediction],
    task: type[Task],
    *,
    num_resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, Measure]:
    """Return ``accuracy`` (every label right) and each label's ``<label>_accuracy``, with intervals.

    Each is a share in [0, 1] of images whose most frequent answer is right; an image without a readable
    answer is wrong, never left out. A label's accuracy is over the images in which it ``is_measured``:
    ``severity_accuracy`` over those that are damaged (Q-Insight, arXiv 2503.22679). NaN over no images.
    """
    several = task.labels if len(task.labels) > 1 else ()
    asked: dict[str, list[tuple[Prediction, bool]]] = {
        "accuracy": [],
        **{f"{name}_accuracy": [] for name in several},
    }
    for item in predictions:
        answer = item.choice or {}
        asked["accuracy"].append((item, all(_right(item, answer, name) for name in task.labels)))
        for name in several:
            if task.is_measured(name, item.labels):
                asked[f"{name}_accuracy"].append((item, _right(item, answer, name)))
    return {
        name: _measure(judged, num_resamples=num_resamples, confidence=confidence, seed=seed)
        for name, judged in asked.items()
    }


def _right(item: Prediction, answer: Mapping[str, str], name: str) -> bool:
    return answer.get(name) == item.labels[name]


def _measure(
    judged: Sequence[tuple[Prediction, bool]], *, num_resamples: int, confidence: float, seed: int
) -> Measure:
    if not judged:
        return Measure(value=math.nan, low=math.nan, high=math.nan)
    values = np.array([right for _, right in judged], dtype=np.float64)
    interval = bootstrap_interval(
        resampled_mean,
        values,
        values,
        clusters=cluster_index([item.reference for item, _ in judged]),
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )
    return Measure(value=float(values.mean()), low=interval.low, high=interval.high)
