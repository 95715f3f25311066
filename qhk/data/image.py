"""Opens images: always upright 8-bit RGB, or one line that says which file is wrong and why.

What becomes of the kinds of file that are found in practice:

========================  =====================================================================
EXIF orientation          applied, so that the picture is seen as the camera's owner saw it
transparency              laid on white
palette, grey, CMYK       converted to RGB by Pillow's plain formulas; colour profiles are ignored
16 bits per channel       scaled to 8 by 257 (grey) or cut to the upper 8 (colour), never by extremes
32-bit grey, float        refused: where white lies is not written in the file
animation, several pages  refused: which picture was meant cannot be known; of a camera's
                          multi-picture file (MPO) the first is the photograph
truncated, not an image   refused, nothing is filled in
under ``MIN_SIDE``        refused, nothing is enlarged
over ``MAX_PIXELS``       refused before a pixel is decoded
========================  =====================================================================
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from zlib import error as zlib_error

import numpy as np
from PIL import ExifTags, Image, ImageOps

from qhk.errors import UserError

MIN_SIDE = 28
"""One visual token of Qwen2.5-VL (patch 14, merge 2): a smaller side cannot be seen at all."""

MAX_PIXELS = 178_000_000
"""Guards the memory against decompression bombs (Pillow refuses a little beyond); no experiment's setting."""

MAX_ASPECT = 200
"""The longest shape that the image processor takes."""

_WHITE = (255, 255, 255, 255)
_BROKEN = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    struct.error,
    zlib_error,
)
"""What Pillow's readers raise on broken files; ``ValueError`` and the rest come from metadata."""


def load_image(path: Path, *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return the picture as upright RGB, as the room's table says.

    Raises ``UserError`` naming the file when it is missing, unreadable or truncated, when a side is under
    ``min_side`` pixels, when it holds more than ``max_pixels``, or several pictures; nothing is ever
    replaced or resized.
    """
    _require_file(path)
    check_size(path, _stored_size(path), min_side=min_side, max_pixels=max_pixels)
    return _decode(path, path)


def check_header(path: Path, *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return ``(width, height)`` as stored, from the header alone. Raises like ``load_image``."""
    _require_file(path)
    size = _stored_size(path)
    check_size(path, size, min_side=min_side, max_pixels=max_pixels)
    return size


def upright_size(path: Path) -> tuple[int, int]:
    """Return the ``(width, height)`` of what ``load_image`` returns, from the header alone. Raises like it.

    Only the header's own EXIF counts; a PNG that keeps its EXIF behind the pixels is taken as stored.
    """
    width, height = check_header(path)
    with _opened(path, path) as image:
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
        turned = exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def read_header(path: Path, content: bytes) -> tuple[tuple[int, int], str]:
    """Return ``((width, height), format)`` of a file's ``content``; ``path`` is its name in messages.

    Raises ``UserError`` where it is no readable picture, or several; sizes are not judged.
    """
    with _opened(path, BytesIO(content)) as image:
        _require_one_picture(path, image)
        return image.size, image.format or ""


def decode(path: Path, content: bytes) -> Image.Image:
    """Return the picture in ``content`` as upright RGB.

    Raises ``UserError`` naming ``path`` where it is broken.
    """
    return _decode(path, BytesIO(content))


def check_size(
    path: Path, size: tuple[int, int], *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS
) -> None:
    """Raise ``UserError`` naming the file where (width, height) is too small, too large or too long."""
    width, height = size
    if min(width, height) < min_side:
        raise UserError(f"{path}: {width}x{height} is too small: both sides need at least {min_side} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UserError(
            f"{path}: {width}x{height} is too long: at most {MAX_ASPECT} times the shorter side, crop it"
        )
    if width * height > max_pixels:
        raise UserError(
            f"{path}: {width}x{height} is too large: at most {max_pixels} pixels, shrink the image"
        )


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such image file: correct the path or add the file")


def _stored_size(path: Path) -> tuple[int, int]:
    with _opened(path, path) as image:
        _require_one_picture(path, image)
        return image.size


def _decode(path: Path, source: Path | BytesIO) -> Image.Image:
    with _opened(path, source) as image:
        image.load()
        return _as_rgb(path, ImageOps.exif_transpose(image), stored_as=image.format)


@contextmanager
def _opened(path: Path, source: Path | BytesIO) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limits decide about bombs; broken EXIF data may be left
            with Image.open(source) as image:
                yield image
    except UserError:  # our own refusal, a ValueError too, is not one of Pillow's errors
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large to open safely ({error}): shrink the image") from None
    except _BROKEN as error:
        raise UserError(f"{path}: not a readable image ({error}): replace the file") from None


def _require_one_picture(path: Path, image: Image.Image) -> None:
    if image.format == "MPO":
        return
    try:
        image.seek(1)
    except EOFError:
        return
    raise UserError(f"{path}: holds several pictures ({image.format}): save the one that was rated as a file")


def _as_rgb(path: Path, image: Image.Image, *, stored_as: str | None) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and stored_as != "PPM"):
        raise UserError(f"{path}: 32-bit pixels have no defined white: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64) / 257.0
        image = Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8), "L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture)
    return image.convert("RGB")
