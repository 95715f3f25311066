"""How people would judge a picture: visible damage, then many raters who disagree.

Quality in [0, 1] falls with the strength of each distortion and with what it did to structure and
colour, so the same strength costs less where the content hides it (content masking).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from qhk.data.miniature.content import LUMA, FloatImage, Generator

ANNOYANCE: dict[str, float] = {
    "gaussian_blur": 0.95,
    "lens_blur": 0.95,
    "motion_blur": 0.9,
    "white_noise": 0.9,
    "colour_noise": 0.85,
    "correlated_noise": 0.9,
    "impulse": 0.9,
    "multiplicative": 0.85,
    "jpeg": 0.95,
    "wavelet": 0.95,
    "smear": 0.75,
    "darken": 0.85,
    "brighten": 0.8,
    "low_contrast": 0.75,
    "quantise": 0.75,
    "desaturate": 0.35,
    "oversaturate": 0.55,
    "colour_cast": 0.5,
    "pixelate": 0.95,
    "jitter": 0.85,
    "oversharpen": 0.7,
    "colour_blocks": 0.75,
    "ringing": 0.95,
    "checkerboard": 0.9,
    "fake_texture": 0.9,
    "blotches": 0.95,
}
"""Loss of quality at full strength before masking, by distortion."""

STRENGTH_SHARE = 0.55
"""Part of the damage that follows the strength; the rest follows the measured difference."""

_SSIM_SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def structure_loss(reference: FloatImage, image: FloatImage) -> float:
    """Return 1 - mean SSIM of the luma (Gaussian window, sigma 1.5), about 0 (same) to 1."""
    x, y = reference @ LUMA, image @ LUMA
    stack = np.stack([x, y, x * x, y * y, x * y])
    mx, my, xx, yy, xy = gaussian_filter(stack, (0.0, _SSIM_SIGMA, _SSIM_SIGMA))
    luminance = (2 * mx * my + _C1) / (mx**2 + my**2 + _C1)
    structure = (2 * (xy - mx * my) + _C2) / (xx - mx**2 + yy - my**2 + _C2)
    return max(0.0, float(1.0 - (luminance * structure).mean()))  # rounding may leave a trace below 0


def colour_loss(reference: FloatImage, image: FloatImage) -> float:
    """Return the mean absolute change of the colour differences (R - Y, B - Y), over 40 grey levels, >= 0."""
    change = image - reference
    luma = (change @ LUMA)[..., None]
    return float(np.abs((change - luma)[..., [0, 2]]).mean() / 40.0)


def latent_quality(reference: FloatImage, image: FloatImage, damage: Sequence[tuple[str, float]]) -> float:
    """Return the quality in [0, 1] of ``image``, made from ``reference`` by (distortion, strength) pairs."""
    untouched = 1.0
    for name, strength in damage:
        untouched *= 1.0 - ANNOYANCE[name] * strength
    measured = min(1.0, structure_loss(reference, image) / 0.8) ** 0.7
    measured = min(1.0, measured + 0.25 * min(1.0, colour_loss(reference, image)))
    return float(
        np.clip(1.0 - STRENGTH_SHARE * (1.0 - untouched) - (1.0 - STRENGTH_SHARE) * measured, 0.0, 1.0)
    )


def collect_opinions(
    quality: NDArray[np.float64], rng: Generator, *, num_raters: int, bias: float, noise: float
) -> NDArray[np.float64]:
    """Return opinions ``(N, num_raters)`` in [0, 1]: every rater has a bias, a gain and own noise.

    Disagreement is largest in the middle of the scale, as in real studies. A small preference for the
    content, shared by all raters, is the part that no distortion explains.
    """
    taste = rng.normal(0.0, 0.025, len(quality))
    gain = rng.normal(1.0, 0.12, num_raters)
    own = rng.normal(0.0, bias, num_raters)
    doubt = noise * (0.6 + 1.6 * quality * (1.0 - quality))
    jitter = rng.standard_normal((len(quality), num_raters)) * doubt[:, None]
    centred = (quality + taste - 0.5)[:, None] * gain[None, :]
    return np.clip(0.5 + centred + own[None, :] + jitter, 0.0, 1.0)
