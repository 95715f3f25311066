"""Opens images: always upright 8-bit RGB, or one line that says which file is wrong and why.

What becomes of the kinds of file that are found in practice:

========================  =====================================================================
orientation               applied, from EXIF or else XMP: seen as the camera's owner saw it
transparency              laid on white: alpha, a palette's, and a colour that stands for it (PNG)
palette, grey, CMYK       converted to RGB by Pillow's plain formulas; colour profiles are ignored
12, 16 bits per channel   scaled to 8 from the largest number (grey) or cut to the upper 8 (colour), never by
                          the extremes that occur; where 0 is white (TIFF), it stays white
32 bits, float, signed    refused: where white lies is not written in the file
animation, several pages  refused: which picture was meant cannot be known; of a camera's
                          multi-picture file (MPO) the first is the photograph
truncated, not an image   refused, nothing is filled in
under ``MIN_SIDE``        refused, nothing is enlarged
over ``MAX_PIXELS``       refused before a pixel is decoded
========================  =====================================================================
"""

from __future__ import annotations

import os
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from zlib import error as zlib_error

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from qhk.errors import UserError

MIN_SIDE = 28
"""The smallest visual token of any family (patch 14, merge 2): a smaller side cannot be seen at all."""

MAX_PIXELS = 178_000_000
"""Guards the memory against decompression bombs (Pillow refuses a little beyond); no experiment's setting."""

MAX_ASPECT = 200
"""The longest shape that the image processor takes."""

_WHITE = (255, 255, 255, 255)
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""By how much Pillow multiplies the greys of a PNG of 2 or 4 bits, so that the largest becomes 255."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation as EXIF and XMP number it -> what brings the stored pixels upright."""

_SIDEWAYS = {_TURNS[number] for number in (5, 6, 7, 8)}
_SIGNED = 2
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
    return _decode(path)


def check_header(path: Path, *, min_side: int = MIN_SIDE, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return ``(width, height)`` as stored, from the header alone. Raises like ``load_image``."""
    _require_file(path)
    size = _stored_size(path)
    check_size(path, size, min_side=min_side, max_pixels=max_pixels)
    return size


def upright_size(path: Path) -> tuple[int, int]:
    """Return the ``(width, height)`` of what ``load_image`` returns, from the header alone. Raises like it.

    A PNG that keeps metadata behind its pixels is read whole.
    """
    width, height = check_header(path)
    with _opened(path) as image:
        if image.format == "PNG" and _has_late_metadata(path):
            image.load()
        # Pillow's size of a TIFF follows its own tag already.
        follows = isinstance(image, TiffImageFile) and ExifTags.Base.Orientation in image.tag_v2
        turned = not follows and _turn(image) in _SIDEWAYS
    return (height, width) if turned else (width, height)


def read_header(path: Path, content: bytes | None = None) -> tuple[tuple[int, int], str]:
    """Return ``((width, height), format)`` of a file, or of its ``content`` if that is in memory already.

    Raises ``UserError`` where it is no readable picture, or several; sizes are not judged.
    """
    with _opened(path, content) as image:
        _require_one_picture(path, image)
        return image.size, image.format or ""


def decode(path: Path, content: bytes) -> Image.Image:
    """Return the picture in ``content`` as upright RGB.

    Raises ``UserError`` naming ``path`` where it is broken.
    """
    return _decode(path, content)


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
    with _opened(path) as image:
        _require_one_picture(path, image)
        return image.size


def _decode(path: Path, content: bytes | None = None) -> Image.Image:
    key = None
    with _opened(path, content) as image:
        rawmode = str(image.tile[0].args) if image.format == "PNG" else ""
        image.load()
        if rawmode == "RGB;16B":
            key = image.info.pop("transparency", None)
        picture, turn = _as_rgb(path, image, rawmode), _turn(image)
    if key is not None:
        clear = (_sixteen_bits(path, content) == key).all(axis=2)
        picture.paste(_WHITE[:3], mask=Image.fromarray(clear))
    return picture if turn is None else picture.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return what brings the pixels upright, by EXIF or else XMP. A TIFF's were turned as they were read."""
    # Of PNG, Pillow's own method would decode the pixels to find nothing behind them.
    return _TURNS.get(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))


def _has_late_metadata(path: Path) -> bool:
    """Return whether a PNG keeps texts or EXIF behind its pixels."""
    late = False
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if late and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            late = late or kind == b"IDAT"
            file.seek(length + 4, os.SEEK_CUR)
    return False


def _sixteen_bits(path: Path, content: bytes | None) -> NDArray[np.uint16]:
    """Return all bits of a 16-bit RGB PNG ``(H, W, 3)``; Pillow gives upper or lower halves."""
    halves = []
    for rawmode in ("RGB;16B", "RGB;16L"):
        with _opened(path, content) as image:
            image.tile = [tile._replace(args=rawmode) for tile in image.tile]
            halves.append(np.asarray(image, dtype=np.uint16))
    return np.asarray(halves[0] << 8 | halves[1], dtype=np.uint16)


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[ImageFile]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limits decide about bombs; broken EXIF data may be left
            # Of a path, Pillow maps the bytes into memory, in the shape that a TIFF has when it is upright.
            source = path.open("rb") if content is None else BytesIO(content)
            with source as file, Image.open(file) as image:
                yield image
    except UserError:  # our own refusal, a ValueError too, is not one of Pillow's errors
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large to open safely ({error}): shrink the image") from None
    except _BROKEN as error:
        said = re.sub(r" *<_io\.[^>]*>", "", str(error))  # the open file, as Pillow shows it
        raise UserError(f"{path}: not a readable image ({said}): replace the file") from None


def _require_one_picture(path: Path, image: Image.Image) -> None:
    if image.format == "MPO":
        return
    try:
        image.seek(1)
    except EOFError:
        return
    raise UserError(f"{path}: holds several pictures ({image.format}): save the one that was rated as a file")


def _as_rgb(path: Path, image: ImageFile, rawmode: str) -> Image.Image:
    """Return the decoded picture as RGB on white, not yet turned; ``rawmode`` is what its file holds."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    signed = _SIGNED in tags.get(SAMPLEFORMAT, ())
    if signed or image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        kind = "32-bit" if 32 in tags.get(BITSPERSAMPLE, (32,)) else "signed"
        raise UserError(f"{path}: {kind} pixels have no defined white: save it with 8 or 16 bits")
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        largest = 2.0 ** tags.get(BITSPERSAMPLE, (16,))[0] - 1
        grey = (largest - values if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else values) / (largest / 255)
        if key is not None:
            grey[values == key] = 255
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8), "L").convert("RGB")
    if rawmode in _GREY_STEPS and key is not None:
        image.info["transparency"] = key * _GREY_STEPS[rawmode]  # Pillow spreads the pixels, and not the key
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Weighted colours become plain ones first: there is no other way from La to RGBA.
    plain = image.convert("LA") if image.mode == "La" else image
    picture = plain.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
