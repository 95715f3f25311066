"""Distortions of the miniature sets: each takes a picture and a strength in (0, 1] and returns a picture.

Pictures are ``(S, S, 3)`` float64 in [0, 255]. Lengths are given for S = 64 and grow with S, so that a
strength looks alike at every size. Strength is monotone in visibility: 0.1 is just visible, 1 is severe.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter, median_filter

from qhk.data.miniature.content import LUMA, FloatImage, Generator, fractal

Distortion = Callable[[FloatImage, float, Generator], FloatImage]


def distort(image: FloatImage, name: str, strength: float, rng: Generator) -> FloatImage:
    """Return the picture after distortion ``name``, clipped to [0, 255]; only ``rng`` is random."""
    assert 0.0 < strength <= 1.0, strength
    return np.clip(DISTORTIONS[name](image, strength, rng), 0.0, 255.0)


def as_pixels(image: FloatImage) -> Image.Image:
    """Return the picture as an 8-bit RGB image."""
    return Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8), "RGB")


def _between(strength: float, weak: float, strong: float) -> float:
    """Geometric interpolation: equal steps of strength are equal ratios."""
    return float(weak * (strong / weak) ** strength)


def _unit(image: FloatImage) -> float:
    return len(image) / 64.0


def _luma(image: FloatImage) -> FloatImage:
    return np.asarray((image @ LUMA)[..., None])


def _gaussian_blur(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    sigma = _between(strength, 0.45, 2.8) * _unit(image)
    return gaussian_filter(image, (sigma, sigma, 0.0))


def _with_kernel(image: FloatImage, kernel: FloatImage) -> FloatImage:
    return convolve(image, (kernel / kernel.sum())[..., None], mode="nearest")


def _lens_blur(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    radius = _between(strength, 0.7, 4.0) * _unit(image)
    reach = int(np.ceil(radius))
    distance = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return _with_kernel(image, np.clip(radius + 0.5 - distance, 0.0, 1.0))


def _motion_blur(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    length, angle = _between(strength, 1.6, 11.0) * _unit(image), rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = np.abs(columns * np.cos(angle) + rows * np.sin(angle))
    across = np.abs(rows * np.cos(angle) - columns * np.sin(angle))
    return _with_kernel(image, np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1.0 - across, 0, 1))


def _white_noise(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    return np.asarray(image + rng.standard_normal(image.shape) * _between(strength, 6.0, 70.0))


def _colour_noise(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    noise = rng.standard_normal(image.shape)
    return np.asarray(
        image + (noise - 0.6 * noise.mean(axis=2, keepdims=True)) * _between(strength, 7.0, 85.0)
    )


def _correlated_noise(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    noise = np.stack([fractal(rng, len(image), 1.0) for _ in range(3)], axis=2)
    return np.asarray(image + noise * _between(strength, 6.0, 55.0))


def _impulse(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    hit = rng.random(image.shape) < _between(strength, 0.006, 0.25)
    return np.where(hit, 255.0 * (rng.random(image.shape) < 0.5), image)


def _multiplicative(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    return np.asarray(image * (1.0 + rng.standard_normal(image.shape) * _between(strength, 0.05, 0.6)))


def _reencode(image: FloatImage, kind: str, **options: int) -> FloatImage:
    buffer = io.BytesIO()
    as_pixels(image).save(buffer, kind, **options)
    return np.asarray(Image.open(buffer).convert("RGB"), dtype=np.float64)


def _jpeg(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    return _reencode(image, "JPEG", quality=round(_between(strength, 60.0, 4.0)))


def _wavelet(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    """Wavelet coding as a soft threshold on an orthonormal Haar pyramid of three levels, per channel.

    Stands in for JPEG 2000, whose header alone would fill the byte budget of so small a picture.
    """
    threshold = _between(strength, 8.0, 160.0)
    low, bands = image, []
    for _ in range(3):
        a, b, c, d = low[0::2, 0::2], low[0::2, 1::2], low[1::2, 0::2], low[1::2, 1::2]
        details = ((a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2)
        bands.append([np.sign(band) * np.clip(np.abs(band) - threshold, 0, None) for band in details])
        low = (a + b + c + d) / 2
    for horizontal, vertical, diagonal in reversed(bands):
        merged = np.empty((2 * len(low), 2 * len(low), 3))
        merged[0::2, 0::2] = (low + horizontal + vertical + diagonal) / 2
        merged[0::2, 1::2] = (low - horizontal + vertical - diagonal) / 2
        merged[1::2, 0::2] = (low + horizontal - vertical - diagonal) / 2
        merged[1::2, 1::2] = (low - horizontal - vertical + diagonal) / 2
        low = merged
    return np.asarray(low)


def _smear(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    """A denoiser at work: flat patches, kept edges."""
    width = 2 * round(_between(strength, 1.0, 3.4) * _unit(image)) + 1
    flat = median_filter(image, (width, width, 1))
    return image + (flat - image) * min(1.0, 0.55 + 0.6 * strength)


def _darken(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    return image * _between(strength, 0.85, 0.16)


def _brighten(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    return 255.0 - (255.0 - image) * _between(strength, 0.85, 0.16)


def _low_contrast(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    return np.asarray(image.mean() + (image - image.mean()) * _between(strength, 0.85, 0.14))


def _quantise(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    step = 255.0 / (round(_between(strength, 14.0, 2.0)) - 1)
    return np.asarray(np.rint(image / step) * step)


def _desaturate(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    grey = _luma(image)
    return grey + (image - grey) * (1.0 - strength)


def _oversaturate(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    grey = _luma(image)
    return grey + (image - grey) * (1.0 + 4.0 * strength)


def _colour_cast(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    direction = rng.standard_normal(3)
    direction -= direction @ LUMA
    return np.asarray(image + direction / np.abs(direction).max() * 100.0 * strength)


def _pixelate(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    block = _between(strength, 1.4, 6.0) * _unit(image)
    index = np.minimum((np.floor(np.arange(len(image)) / block) + 0.5) * block, len(image) - 1).astype(int)
    smooth = gaussian_filter(image, (block / 4, block / 4, 0.0))
    return np.asarray(smooth[np.ix_(index, index)])


def _jitter(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    reach = _between(strength, 0.6, 4.0) * _unit(image)
    rows, columns = np.mgrid[0 : len(image), 0 : len(image)]
    moves = np.rint(rng.uniform(-reach, reach, (2, *rows.shape))).astype(int)
    last = len(image) - 1
    return np.asarray(image[np.clip(rows + moves[0], 0, last), np.clip(columns + moves[1], 0, last)])


def _oversharpen(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    detail = image - gaussian_filter(image, (1.2 * _unit(image), 1.2 * _unit(image), 0.0))
    return image + detail * _between(strength, 0.6, 7.0)


def _colour_blocks(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    damaged, side = image.copy(), max(3, round(6 * _unit(image)))
    for _ in range(round(_between(strength, 1.5, 22.0))):
        row, column = rng.integers(0, len(image) - side, 2)
        damaged[row : row + side, column : column + side] = rng.uniform(0, 255, 3)
    return damaged


def _ringing(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    """A sharp cut-off in frequency: ripples beside every edge."""
    frequency = np.hypot(np.fft.fftfreq(len(image))[:, None], np.fft.rfftfreq(len(image))[None, :])
    keep = (frequency < _between(strength, 0.36, 0.07) / _unit(image))[..., None]
    return np.asarray(np.fft.irfft2(np.fft.rfft2(image, axes=(0, 1)) * keep, s=image.shape[:2], axes=(0, 1)))


def _checkerboard(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    """Transposed-convolution upsampling: a softened picture under a fine regular lattice."""
    soft = gaussian_filter(image, (0.5 + 1.5 * strength, 0.5 + 1.5 * strength, 0.0))
    rows, columns = np.mgrid[0 : len(image), 0 : len(image)]
    lattice = np.where(rows % 2 == 0, 1.0, -1.0) * np.where(columns % 2 == 0, 1.0, -1.0)
    return np.asarray(soft + (lattice * _between(strength, 2.0, 22.0))[..., None])


def _fake_texture(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    """Invented worm-like strokes where the detail was lost."""
    soft = gaussian_filter(image, (0.5 + 2.0 * strength, 0.5 + 2.0 * strength, 0.0))
    band = gaussian_filter(rng.standard_normal(image.shape[:2]), 0.7) - gaussian_filter(
        rng.standard_normal(image.shape[:2]), 1.6
    )
    worms = np.tanh(3.0 * band / band.std())
    return np.asarray(soft + (worms * _between(strength, 4.0, 26.0))[..., None])


def _blotches(image: FloatImage, strength: float, rng: Generator) -> FloatImage:
    """Large coloured stains of a generator that lost the scene."""
    stains = np.stack([fractal(rng, len(image), 1.8) for _ in range(3)], axis=2)
    return np.asarray(
        image * (1.0 - 0.5 * strength) + 60.0 * strength + stains * _between(strength, 8.0, 60.0)
    )


DISTORTIONS: dict[str, Distortion] = {
    "gaussian_blur": _gaussian_blur,
    "lens_blur": _lens_blur,
    "motion_blur": _motion_blur,
    "white_noise": _white_noise,
    "colour_noise": _colour_noise,
    "correlated_noise": _correlated_noise,
    "impulse": _impulse,
    "multiplicative": _multiplicative,
    "jpeg": _jpeg,
    "wavelet": _wavelet,
    "smear": _smear,
    "darken": _darken,
    "brighten": _brighten,
    "low_contrast": _low_contrast,
    "quantise": _quantise,
    "desaturate": _desaturate,
    "oversaturate": _oversaturate,
    "colour_cast": _colour_cast,
    "pixelate": _pixelate,
    "jitter": _jitter,
    "oversharpen": _oversharpen,
    "colour_blocks": _colour_blocks,
    "ringing": _ringing,
    "checkerboard": _checkerboard,
    "fake_texture": _fake_texture,
    "blotches": _blotches,
}
