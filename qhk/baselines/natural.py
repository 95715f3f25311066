"""Statistics of natural scenes that BRISQUE and NIQE are made of: normalised luminance and its shape."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, special

Array = NDArray[np.float64]
Border = Literal["nearest", "constant"]

SIGMA, RADIUS = 7 / 6, 3
"""The window of both papers: 7 x 7 pixels, circular, out to three standard deviations."""

SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))
"""Neighbours whose products are looked at: beside, below, and on both diagonals."""


def window() -> Array:
    """Return the window along one axis ``(7,)``; its sum is 1."""
    places = np.arange(-RADIUS, RADIUS + 1)
    heights = np.exp(-(places**2) / (2 * SIGMA**2))
    weights: Array = heights / heights.sum()
    return weights


def local_moments(image: Array, mode: Border) -> tuple[Array, Array]:
    """Return mean and standard deviation in the window around each pixel, both ``(H, W)``.

    ``mode`` says what lies beyond the border, as in ``scipy.ndimage``: "nearest", or "constant" for zeros.
    """
    weights = window()

    def mean(values: Array) -> Array:
        along = ndimage.correlate1d(values, weights, axis=0, mode=mode)
        return np.asarray(ndimage.correlate1d(along, weights, axis=1, mode=mode))

    middle = mean(image)
    return middle, np.sqrt(np.abs(mean(image**2) - middle**2))


def normalised(image: Array, mode: Border) -> Array:
    """Return the image less its local mean, over its local standard deviation plus 1, ``(H, W)``.

    Source: Mittal et al., IEEE TIP 2012, equations 1 to 3.
    """
    mean, deviation = local_moments(image, mode)
    return (image - mean) / (deviation + 1)


@cache
def _shapes() -> tuple[Array, Array]:
    """Return shapes alpha and ``Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a))`` of each, ascending in both."""
    alpha = np.arange(0.2, 10.0005, 0.001)
    ratio = np.exp(2 * special.gammaln(2 / alpha) - special.gammaln(1 / alpha) - special.gammaln(3 / alpha))
    return alpha, ratio


def fit_symmetric(values: Array) -> tuple[float, float]:
    """Return shape and variance of a generalised Gaussian of mean 0, by moments as ``fit_asymmetric``."""
    energy = float((values**2).mean())
    return _shape(1.0, float(np.abs(values).mean()), energy), energy


def fit_asymmetric(values: Array) -> tuple[float, float, float]:
    """Return shape and the root mean squares of both sides of an asymmetric generalised Gaussian.

    Found by moments, the shape on a grid of 0.001 from 0.2 to 10. A side without values has 0; of nothing
    but zeros the shape is the largest. Source: Lasmar et al., ICIP 2009, section 3.
    """
    squares = values**2
    left, right = (
        math.sqrt(float(side.mean())) if side.size else 0.0
        for side in (squares[values < 0], squares[values > 0])
    )
    skew = min(left, right) / max(left, right, 1e-300)
    return _shape(skew, float(np.abs(values).mean()), float(squares.mean())), left, right


def _shape(skew: float, mean_size: float, energy: float) -> float:
    """Return the shape that has these moments; ``skew`` in [0, 1] is the smaller side over the larger."""
    alpha, ratio = _shapes()
    if energy == 0:
        return float(alpha[-1])
    wanted = mean_size**2 / energy * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    return float(alpha[np.abs(ratio - wanted).argmin()])


def scale_of(shape: float, root_mean_square: float) -> float:
    """Return the scale beta of one side with this shape and root mean square."""
    return root_mean_square * math.exp((special.gammaln(1 / shape) - special.gammaln(3 / shape)) / 2)


def mean_of(shape: float, left: float, right: float) -> float:
    """Return the mean of the fitted distribution from its shape and its sides' scales beta."""
    return (right - left) * math.exp(special.gammaln(2 / shape) - special.gammaln(1 / shape))


def neighbour_products(values: Array) -> list[Array]:
    """Return each value times its neighbour in ``SHIFTS``, each ``(H, W)``; borders meet the other side."""
    return [values * np.roll(values, shift, axis=(0, 1)) for shift in SHIFTS]


def halved(image: Array) -> Array:
    """Return the image at half its size, rounded up, by antialiased bicubic interpolation."""
    height, width = image.shape
    small = Image.fromarray(image.astype(np.float32)).resize(
        ((width + 1) // 2, (height + 1) // 2), Image.Resampling.BICUBIC
    )
    return np.asarray(small, dtype=np.float64)
