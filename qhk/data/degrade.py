"""The four published degradations of Q-Hawkeye: noise, blur, jpeg, darken.

Operations and strengths follow the release's first stage (std 45, radius 2.0, quality 5, factor 0.6). Two
things differ: all randomness is seeded, and results stay in memory, so that kinds other than jpeg are not
stored as JPEG on the way.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from qhk.errors import UserError

JPEG_ROUNDS = 4
"""Three encode / decode rounds, and the one of storing the result."""


def degrade(image: Image.Image, *, kind: str, strength: float, rng: np.random.Generator) -> Image.Image:
    """Return a degraded copy of ``image`` (RGB), same size; the source is left as it is.

    ``strength`` is the standard deviation of noise in grey levels (>= 0), the radius of blur in pixels
    (>= 0), the quality of jpeg (1-95, a whole number), or the brightness factor of darken (0-1). Only
    noise draws from ``rng``. Raises ``UserError`` on an unknown kind or a strength out of range.
    """
    assert image.mode == "RGB", image.mode
    if kind not in _OPERATIONS:
        raise UserError(f"twin.kinds has {kind!r}: choose from {', '.join(_OPERATIONS)}")
    check_strength(kind, strength)
    return _OPERATIONS[kind](image, strength, rng)


def check_strength(kind: str, strength: float) -> None:
    """Raise ``UserError`` where ``strength`` is outside the range of ``kind``."""
    low, high = _RANGES[kind]
    if not low <= strength <= high or (kind == "jpeg" and strength != int(strength)):
        whole = "a whole number " if kind == "jpeg" else ""
        raise UserError(f"twin.strengths.{kind} must be {whole}in [{low:g}, {high:g}], got {strength}")


def eased_strength(kind: str, strength: float, factor: float) -> float:
    """Return the strength of ``kind`` at ``factor`` in [0, 1] of the way from harmless to ``strength``.

    ``neutral + factor (strength - neutral)``, with neutral 0 for the std of noise and the radius of blur, 95
    for the quality of jpeg (the highest there is; rounded to a whole number), and 1 for the brightness of
    darken, where smaller is stronger. Factor 1 gives ``strength`` itself.
    """
    assert 0.0 <= factor <= 1.0, factor
    if factor == 1.0:
        return strength
    eased = _NEUTRAL[kind] + factor * (strength - _NEUTRAL[kind])
    return float(round(eased)) if kind == "jpeg" else eased


def _noise(image: Image.Image, std: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    noisy = pixels + rng.standard_normal(pixels.shape) * std
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _blur(image: Image.Image, radius: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def jpeg_bytes(image: Image.Image, quality: int) -> bytes:
    """Return the JPEG file after ``JPEG_ROUNDS`` rounds at ``quality`` (1-95); decoded, it is kind jpeg."""
    check_strength("jpeg", quality)
    content = b""
    for _ in range(JPEG_ROUNDS):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        content = buffer.getvalue()
        image = Image.open(buffer).convert("RGB")
    return content


def _jpeg(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    return Image.open(io.BytesIO(jpeg_bytes(image, int(quality)))).convert("RGB")


def _darken(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


_OPERATIONS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "darken": _darken,
}
_RANGES = {"noise": (0.0, 255.0), "blur": (0.0, 100.0), "jpeg": (1.0, 95.0), "darken": (0.0, 1.0)}
_NEUTRAL = {"noise": 0.0, "blur": 0.0, "jpeg": 95.0, "darken": 1.0}
KINDS = tuple(_OPERATIONS)
