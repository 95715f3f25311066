"""BRISQUE: a support vector regression on statistics of natural scenes, trained on the scores of LIVE.

Source: Mittal, Moorthy, Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP 2012.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from qhk.baselines.natural import (
    Array,
    fit_asymmetric,
    fit_symmetric,
    halved,
    mean_of,
    neighbour_products,
    normalised,
    scale_of,
)

PARAMETERS = Path(__file__).parent / "parameters" / "brisque.npz"

MIN_SIDE = 16
"""Pixels: half of it must still hold the window."""


def brisque(image: Array) -> float:
    """Return BRISQUE of a grey image ``(H, W)`` in 0 to 255: about 0 (as natural) to 100, less is better.

    It is not bounded: pictures unlike those of LIVE lie outside.
    """
    features = np.concatenate([_features(image), _features(halved(image))])
    model = _model()
    scaled = -1 + 2 * (features - model["low"]) / (model["high"] - model["low"])
    distances = ((model["vectors"] - scaled) ** 2).sum(axis=1)
    return float(model["weights"] @ np.exp(-model["gamma"] * distances) - model["rho"])


def _features(image: Array) -> Array:
    """Return the features of one size ``(18,)``. Source: table I of the paper.

    Shape and variance of the normalised luminance; then of its products with each neighbour shape, mean, and
    the mean squares of both sides.
    """
    values = normalised(image, "constant")
    found = [*fit_symmetric(values)]
    for products in neighbour_products(values):
        shape, left, right = fit_asymmetric(products)
        mean = mean_of(shape, scale_of(shape, left), scale_of(shape, right))
        found += [shape, mean, left**2, right**2]
    return np.array(found)


@cache
def _model() -> dict[str, Array]:
    with np.load(PARAMETERS) as file:
        return {name: np.asarray(file[name], dtype=np.float64) for name in file.files}
