"""The four degradations of Q-Hawkeye (noise, blur, jpeg, darken), and three that hide (grey, mask, crop).

Operations and strengths follow the release's first stage (std 45, radius 2.0, quality 5, factor 0.6). Two
things differ: all randomness is seeded, and results stay in memory, so that kinds other than jpeg are not
stored as JPEG on the way. What hides is for losses that ask whether the picture is looked at (PAPO, arXiv
2507.06448; VPPO, arXiv 2510.09285), not for copies of lower quality: prepared pairs have the published four.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from qhk.errors import UserError
from qhk.settings.twin import STRENGTHS

GREY = (128, 128, 128)
MASK_PATCH = 14
"""Side in pixels of the patches that ``mask`` blackens (PAPO)."""

JPEG_ROUNDS = 4
"""Three encode / decode rounds, and the one of storing the result."""


def degrade(image: Image.Image, *, kind: str, strength: float, rng: np.random.Generator) -> Image.Image:
    """Return a degraded copy of ``image`` (RGB), same size; the source is left as it is.

    ``strength`` is the standard deviation of noise in grey levels (>= 0), the radius of blur in pixels
    (>= 0), the quality of jpeg (1-95, a whole number), the brightness factor of darken (0-1), the share of
    even grey that is mixed in (0-1), the probability of a patch of ``MASK_PATCH`` pixels to be black (0-1),
    or the share of the area that crop cuts away (0-0.99), whose rest is enlarged to the size. Noise, mask
    and crop draw from ``rng``. Raises ``UserError`` on an unknown kind or a strength out of range.
    """
    assert image.mode == "RGB", image.mode
    if kind not in _OPERATIONS:
        raise UserError(f"twin.kinds has {kind!r}: choose from {', '.join(_OPERATIONS)}")
    check_strength(kind, strength)
    return _OPERATIONS[kind](image, strength, rng)


def check_strength(kind: str, strength: float) -> None:
    """Raise ``UserError`` where ``strength`` is outside the range of ``kind``."""
    low, high = STRENGTHS[kind]
    if not low <= strength <= high or (kind == "jpeg" and strength != int(strength)):
        whole = "a whole number " if kind == "jpeg" else ""
        raise UserError(f"twin.strengths.{kind} must be {whole}in [{low:g}, {high:g}], got {strength}")


def eased_strength(kind: str, strength: float, factor: float) -> float:
    """Return the strength of ``kind`` at ``factor`` in [0, 1] of the way from harmless to ``strength``.

    ``neutral + factor (strength - neutral)``, with neutral 95 for the quality of jpeg (the highest there is;
    rounded to a whole number), 1 for the brightness of darken, where smaller is stronger, and 0 for all
    other kinds. Factor 1 gives ``strength`` itself.
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


def _grey(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, GREY), share)


def _mask(image: Image.Image, probability: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.array(image)
    rows, columns = (-(-side // MASK_PATCH) for side in pixels.shape[:2])
    hidden = (rng.random((rows, columns)) < probability).repeat(MASK_PATCH, 0).repeat(MASK_PATCH, 1)
    pixels[hidden[: pixels.shape[0], : pixels.shape[1]]] = 0
    return Image.fromarray(pixels)


def _crop(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    if share == 0.0:
        return image.copy()
    kept = [max(1, round(side * math.sqrt(1.0 - share))) for side in image.size]
    left, top = (int(rng.integers(side - own + 1)) for side, own in zip(image.size, kept, strict=True))
    box = (left, top, left + kept[0], top + kept[1])
    return image.crop(box).resize(image.size, Image.Resampling.BICUBIC)


_OPERATIONS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "darken": _darken,
    "grey": _grey,
    "mask": _mask,
    "crop": _crop,
}
_NEUTRAL = {**dict.fromkeys(_OPERATIONS, 0.0), "jpeg": 95.0, "darken": 1.0}
KINDS = ("noise", "blur", "jpeg", "darken")
"""The published ones."""
