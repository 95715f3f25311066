"""How far predictions can be relied on: their spread, and how sure the opinions themselves are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qhk.evaluation.predictions import Prediction
from qhk.statistics.bootstrap import cluster_index
from qhk.statistics.correlation import Array, logistic_plcc
from qhk.statistics.opinion import analyse_errors, analyse_pairs
from qhk.statistics.reliability import (
    Sparsification,
    sparsify,
    split_conformal,
    spread_and_error,
    tie_broken_srcc,
)

COVERAGE, CONFIDENCE = 0.9, 0.95
MIN_IMAGES = 10
"""Fewer say nothing about coverage or curves."""

MAX_PAIRED = 5000
"""With more images, all pairs of them take too long: they are not analysed."""

NUM_PARAMETERS = 4
"""Of the logistic fit."""


def measure_reliability(predictions: Sequence[Prediction], *, ratings: float | None) -> dict[str, float]:
    """Return what can be said of the predictions with a score and an opinion, by name; nothing of none.

    ``tie_broken_srcc``. Where every image has several samples: ``spread_and_error`` (SRCC of their spread and
    the absolute error), ``sparsification_area``, and the ``coverage`` and mean ``width`` of split-conformal
    intervals that were asked to cover 0.9. Where the standard deviation of opinions and their number
    ``ratings`` are known: ``different_auc``, ``better_auc`` and ``better_share`` of Krasula's analysis of
    pairs, ``rmse_star`` and ``outlier_ratio`` of ITU-T P.1401 after the logistic fit (NaN with one rating).
    """
    items = scored(predictions)
    prediction, mos, spread = as_arrays(items)
    found: dict[str, float] = {}
    if len(items) > 2:
        found["tie_broken_srcc"] = tie_broken_srcc(prediction, mos, num_orders=20, seed=0)
    if len(items) >= MIN_IMAGES and np.isfinite(spread).all():
        clusters = cluster_index([item.reference for item in items])
        conformal = split_conformal(prediction, spread, mos, clusters, coverage=COVERAGE, seed=0)
        found["spread_and_error"] = spread_and_error(spread, mos - prediction)
        found["sparsification_area"] = sparsify(spread, mos - prediction).area
        found["coverage"], found["width"] = conformal.found, conformal.mean_width
    if why_no_opinions(items, ratings=ratings) == "":
        assert ratings is not None
        found |= _against_opinions(items, prediction, mos, ratings)
    return found


def why_no_opinions(items: Sequence[Prediction], *, ratings: float | None) -> str:
    """Return why predictions cannot be held against how sure opinions are, in a few words, or ""."""
    if ratings is None:
        return "the number of ratings per image is not known"
    if any(item.mos_std is None for item in items):
        return "the spread of opinions is not known"
    if len(items) < MIN_IMAGES:
        return f"fewer than {MIN_IMAGES} images"
    return f"more than {MAX_PAIRED} images" if len(items) > MAX_PAIRED else ""


def _against_opinions(
    items: Sequence[Prediction], prediction: Array, mos: Array, ratings: float
) -> dict[str, float]:
    mos_std = np.array([item.mos_std for item in items], dtype=np.float64)
    pairs = analyse_pairs(prediction, mos, mos_std, ratings, confidence=CONFIDENCE)
    found = {
        "different_auc": pairs.different_auc,
        "better_auc": pairs.better_auc,
        "better_share": pairs.better_share,
    }
    if ratings > 1:
        fitted = logistic_plcc(prediction, mos).fitted
        errors = analyse_errors(
            fitted, mos, mos_std, ratings, num_parameters=NUM_PARAMETERS, confidence=CONFIDENCE
        )
        found |= {"rmse_star": errors.rmse_star, "outlier_ratio": errors.outlier_ratio}
    return found


def sparsification(predictions: Sequence[Prediction]) -> Sparsification | None:
    """Return the curves behind ``sparsification_area``, None where there is no such area."""
    items = scored(predictions)
    prediction, mos, spread = as_arrays(items)
    if len(items) < MIN_IMAGES or not np.isfinite(spread).all():
        return None
    return sparsify(spread, mos - prediction)


def scored(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions with a readable score, of images with an opinion."""
    return [item for item in predictions if item.clipped is not None and item.mos is not None]


def as_arrays(items: Sequence[Prediction]) -> tuple[Array, Array, Array]:
    """Return scores, opinions and the unbiased deviation of samples ``(n,)``; NaN for under two samples."""
    prediction = np.array([item.clipped for item in items], dtype=np.float64)
    mos = np.array([item.mos for item in items], dtype=np.float64)
    return prediction, mos, np.array([_spread(item) for item in items], dtype=np.float64)


def _spread(item: Prediction) -> float:
    read = [sample for sample in item.samples if sample is not None]
    return float(np.std(read, ddof=1)) if len(read) > 1 else math.nan
