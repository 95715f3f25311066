"""Opens images: always upright 8-bit RGB, or one line that says which file is wrong and why."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

MIN_SIDE = 28
"""One visual token of Qwen2.5-VL (patch 14, merge 2): a smaller side cannot be seen at all."""

MAX_PIXELS = 256_000_000
"""Beyond any camera; guards the memory against a decompression bomb, not a setting of an experiment."""

MAX_ASPECT = 200
"""The longest shape that the image processor takes."""

_WHITE = (255, 255, 255, 255)


def load_image(path: Path, *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as upright RGB: EXIF orientation applied, transparency laid on white.

    Palette, grey, CMYK and 16-bit files are converted (16 bits keep their upper 8). Raises
    ``ValueError`` naming the file when it is missing, unreadable or truncated, when a side is under
    ``min_side`` pixels, or when it holds more than ``max_pixels``; nothing is ever replaced or resized.
    """
    with _opened(path) as image:
        _check_size(path, image.size, min_side=min_side, max_pixels=max_pixels)
        image.load()
        upright = ImageOps.exif_transpose(image)
        return _as_rgb(upright)


def check_header(path: Path, *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """``(width, height)`` as stored, from the header alone. Raises like ``load_image``."""
    with _opened(path) as image:
        _check_size(path, image.size, min_side=min_side, max_pixels=max_pixels)
        return image.size


def upright_size(path: Path) -> tuple[int, int]:
    """``(width, height)`` of what ``load_image`` returns, from the header alone. Raises like it.

    Only the header's own EXIF counts; a PNG that keeps its EXIF behind the pixels is taken as stored.
    """
    with _opened(path) as image:
        _check_size(path, image.size, min_side=MIN_SIDE, max_pixels=MAX_PIXELS)
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        turned = exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if turned else image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not path.is_file():
        raise ValueError(f"{path}: no such image file: correct the path or add the file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit decides
            with Image.open(path) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: too large to open safely ({error}): shrink the image") from None
    except (OSError, SyntaxError, EOFError, struct.error) as error:
        raise ValueError(f"{path}: not a readable image ({error}): replace the file") from None


def _check_size(path: Path, size: tuple[int, int], *, min_side: int, max_pixels: int) -> None:
    width, height = size
    if min(width, height) < min_side:
        raise ValueError(f"{path}: {width}x{height} is too small: both sides need at least {min_side} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"{path}: {width}x{height} is too long: at most {MAX_ASPECT} times the shorter side, crop it"
        )
    if width * height > max_pixels:
        raise ValueError(
            f"{path}: {width}x{height} is too large: at most {max_pixels} pixels, shrink the image"
        )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture)
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits, scaled by its type (16 bits), never by its own extremes."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode != "F" and (image.mode.startswith("I;16") or values.max() > 255):
        values = values / 257.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), "L")
