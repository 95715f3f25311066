"""The degradations of pairs: the four published ones and a wider family, each with one strength.

Every operation keeps the size. Sources of the further ones: Pillow (enhancers, filters, codecs) and
scikit-image (random noise, gamma, structuring elements).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from scipy.ndimage import convolve
from skimage.draw import line
from skimage.exposure import adjust_gamma
from skimage.morphology import disk
from skimage.util import random_noise

from qhk.data.degrade import KINDS as PUBLISHED
from qhk.data.degrade import degrade, jpeg_bytes
from qhk.errors import UserError

Apply = Callable[[Image.Image, float, np.random.Generator], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One kind of degradation; from ``mildest`` to ``strongest`` the picture gets steadily worse.

    ``whole`` strengths are whole numbers. The two ends are the range that a strength may have.
    """

    apply: Apply
    mildest: float
    strongest: float
    whole: bool = False


def operation(kind: str) -> Operation:
    """Return the operation called ``kind``. Raises ``UserError`` naming the known ones for any other name."""
    if kind not in OPERATIONS:
        raise UserError(f"pairs: {kind!r} is no degradation: choose from {', '.join(OPERATIONS)}")
    return OPERATIONS[kind]


def check_operation(kind: str, strength: float, *, key: str) -> None:
    """Raise ``UserError`` naming ``key`` when ``strength`` is outside the range of ``kind``."""
    known = operation(kind)
    low, high = sorted((known.mildest, known.strongest))
    if not low <= strength <= high or (known.whole and strength != int(strength)):
        whole = "a whole number " if known.whole else ""
        raise UserError(f"{key} must be {whole}in [{low:g}, {high:g}], got {strength}")


def apply_operation(
    image: Image.Image, *, kind: str, strength: float, rng: np.random.Generator
) -> Image.Image:
    """Return a degraded copy of ``image`` (RGB) of the same size; all randomness comes from ``rng``."""
    assert image.mode == "RGB", image.mode
    result = operation(kind).apply(image, strength, rng)
    assert result.size == image.size and result.mode == "RGB"
    return result


def encode_copy(
    image: Image.Image, *, kind: str, strength: float, rng: np.random.Generator, storage: str
) -> tuple[bytes, str]:
    """Return the degraded copy of ``image`` as the bytes of a file, and the file's extension.

    ``lossless`` stores PNG, and jpeg as the JPEG of its last round (which decodes to the same pixels);
    ``published`` stores JPEG of quality 95 for every other kind, as the release does.
    """
    if kind == "jpeg":
        return jpeg_bytes(image, int(strength)), ".jpg"
    copy = apply_operation(image, kind=kind, strength=strength, rng=rng)
    buffer = io.BytesIO()
    if storage == "published":
        copy.save(buffer, "JPEG", quality=95)
        return buffer.getvalue(), ".jpg"
    assert storage == "lossless", storage
    copy.save(buffer, "PNG")
    return buffer.getvalue(), ".png"


def _published(kind: str) -> Apply:
    return lambda image, strength, rng: degrade(image, kind=kind, strength=strength, rng=rng)


def _from_unit(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8))


def _unit(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64) / 255.0


def _brighten(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def _low_contrast(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _desaturate(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def _oversharpen(image: Image.Image, percent: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.UnsharpMask(radius=2, percent=int(percent), threshold=0))


def _gamma(image: Image.Image, gamma: float, rng: np.random.Generator) -> Image.Image:
    return _from_unit(adjust_gamma(_unit(image), gamma=gamma))  # type: ignore[no-untyped-call]


def _haze(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    return Image.blend(image, Image.new("RGB", image.size, (215, 218, 222)), share)


def _shot_noise(image: Image.Image, scale: float, rng: np.random.Generator) -> Image.Image:
    """Return poisson noise of photons; ``scale`` grey levels per photon."""
    pixels = np.asarray(image, dtype=np.float64)
    if scale == 0:
        return image.copy()
    return _from_unit(rng.poisson(pixels / scale) * scale / 255.0)


def _salt_and_pepper(image: Image.Image, amount: float, rng: np.random.Generator) -> Image.Image:
    noisy = random_noise(_unit(image), mode="s&p", amount=amount, rng=rng)  # type: ignore[no-untyped-call]
    return _from_unit(noisy)


def _speckle(image: Image.Image, std: float, rng: np.random.Generator) -> Image.Image:
    noisy = random_noise(_unit(image), mode="speckle", var=std**2, rng=rng)  # type: ignore[no-untyped-call]
    return _from_unit(noisy)


def _filtered(image: Image.Image, kernel: np.ndarray) -> Image.Image:
    weights = kernel / kernel.sum()
    return _from_unit(convolve(_unit(image), weights[:, :, None], mode="reflect"))


def _defocus(image: Image.Image, radius: float, rng: np.random.Generator) -> Image.Image:
    kernel = disk(int(radius))  # type: ignore[no-untyped-call]
    return _filtered(image, kernel.astype(np.float64))


def _motion_blur(image: Image.Image, length: float, rng: np.random.Generator) -> Image.Image:
    """Return a straight shake of ``length`` pixels in a direction drawn from ``rng``."""
    reach = int(length)
    angle = rng.uniform(0.0, np.pi)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    across, down = round(reach * np.cos(angle) / 2), round(reach * np.sin(angle) / 2)
    ends = (reach - down, reach - across, reach + down, reach + across)
    rows, columns = line(*ends)  # type: ignore[no-untyped-call]
    kernel[rows, columns] = 1.0
    return _filtered(image, kernel)


def _shrunk(image: Image.Image, factor: float, resample: Image.Resampling) -> Image.Image:
    small = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, resample)


def _downsample(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    return _shrunk(image, factor, Image.Resampling.BICUBIC)


def _pixelate(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    return _shrunk(image, factor, Image.Resampling.NEAREST)


def _few_colours(image: Image.Image, num_colours: float, rng: np.random.Generator) -> Image.Image:
    flat = image.quantize(int(num_colours), dither=Image.Dither.NONE)
    return flat.convert("RGB")


def _webp(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    return _through(image, "WEBP", quality=int(quality))


def _jpeg2000(image: Image.Image, ratio: float, rng: np.random.Generator) -> Image.Image:
    return _through(image, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True)


def _through(image: Image.Image, codec: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    return Image.open(buffer).convert("RGB")


_PUBLISHED_RANGES = {"noise": (0.0, 255.0), "blur": (0.0, 100.0), "jpeg": (95.0, 1.0), "darken": (1.0, 0.0)}

OPERATIONS: dict[str, Operation] = {
    kind: Operation(
        apply=_published(kind),
        mildest=_PUBLISHED_RANGES[kind][0],
        strongest=_PUBLISHED_RANGES[kind][1],
        whole=kind == "jpeg",
    )
    for kind in PUBLISHED
} | {
    "shot_noise": Operation(apply=_shot_noise, mildest=0.0, strongest=64.0),
    "speckle": Operation(apply=_speckle, mildest=0.0, strongest=1.0),
    "salt_and_pepper": Operation(apply=_salt_and_pepper, mildest=0.0, strongest=0.5),
    "defocus": Operation(apply=_defocus, mildest=0, strongest=30, whole=True),
    "motion_blur": Operation(apply=_motion_blur, mildest=1, strongest=60, whole=True),
    "downsample": Operation(apply=_downsample, mildest=1.0, strongest=16.0),
    "pixelate": Operation(apply=_pixelate, mildest=1.0, strongest=16.0),
    "few_colours": Operation(apply=_few_colours, mildest=256, strongest=2, whole=True),
    "webp": Operation(apply=_webp, mildest=100, strongest=1, whole=True),
    "jpeg2000": Operation(apply=_jpeg2000, mildest=1.0, strongest=500.0),
    "brighten": Operation(apply=_brighten, mildest=1.0, strongest=4.0),
    "low_contrast": Operation(apply=_low_contrast, mildest=1.0, strongest=0.0),
    "desaturate": Operation(apply=_desaturate, mildest=1.0, strongest=0.0),
    "gamma": Operation(apply=_gamma, mildest=1.0, strongest=5.0),
    "haze": Operation(apply=_haze, mildest=0.0, strongest=1.0),
    "oversharpen": Operation(apply=_oversharpen, mildest=0, strongest=1000, whole=True),
}
"""By name; the first four are the published ones."""
