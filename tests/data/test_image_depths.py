"""Brightness, transparency and orientation of every way in which PNG and TIFF store pixels, by hand.

A picture has four upright stripes, eight pixels wide, each of one colour.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from qhk.data.image import load_image, upright_size

SIDE, STRIPE = 32, 8
Pixels = Sequence[tuple[int, ...]]


def packed(stripes: Pixels, bits: int, order: str = ">") -> bytes:
    """One row: every sample in ``bits`` bits, the most significant first; of 16, by byte order."""
    samples = [sample for pixel in stripes for _ in range(STRIPE) for sample in pixel]
    if bits >= 16:
        return struct.pack(f"{order}{len(samples)}{'H' if bits == 16 else 'I'}", *samples)
    text = "".join(format(sample, f"0{bits}b") for sample in samples)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    path: Path, stripes: Pixels, bits: int, colour_type: int, *, key: bytes = b"", palette: bytes = b"",
    before: bytes = b"", after: bytes = b"", height: int = SIDE,
) -> Path:  # fmt: skip
    header = struct.pack(">IIBBBBB", STRIPE * len(stripes), height, bits, colour_type, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), before]
    parts += [chunk(name, content) for name, content in ((b"PLTE", palette), (b"tRNS", key)) if content]
    pixels = zlib.compress((b"\0" + packed(stripes, bits)) * height)
    path.write_bytes(b"".join([*parts, chunk(b"IDAT", pixels), after, chunk(b"IEND", b"")]))
    return path


def tiff(
    path: Path, stripes: Pixels, bits: int, photometric: int, *, order: str = "<", extra: int | None = None,
    sample_format: int = 1, palette: Sequence[int] = (), tags: dict[int, int] | None = None, xmp: bytes = b"",
) -> Path:  # fmt: skip
    count, pixels = len(stripes[0]), packed(stripes, bits, order) * SIDE
    entries: dict[int, Sequence[int] | bytes] = {
        256: (STRIPE * len(stripes),), 257: (SIDE,), 258: (bits,) * count, 259: (1,), 262: (photometric,),
        273: (8,), 277: (count,), 278: (SIDE,), 279: (len(pixels),), 339: (sample_format,) * count,
        **({338: (extra,)} if extra is not None else {}), **({320: palette} if palette else {}),
        **{tag: (value,) for tag, value in (tags or {}).items()}, **({700: xmp} if xmp else {}),
    }  # fmt: skip
    data, fields = pixels + b"\0" * (len(pixels) % 2), b""
    for tag, values in sorted(entries.items()):
        kind = 1 if isinstance(values, bytes) else 3
        content = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}H", *values)
        place = content.ljust(4, b"\0")
        if len(content) > 4:
            place, data = struct.pack(f"{order}I", 8 + len(data)), data + content + b"\0" * (len(content) % 2)
        fields += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    path.write_bytes(
        head + data + struct.pack(f"{order}H", len(entries)) + fields + struct.pack(f"{order}I", 0)
    )
    return path


def seen(path: Path) -> list[tuple[int, ...]]:
    loaded = np.asarray(load_image(path))
    stripes = loaded.reshape(SIDE, -1, STRIPE, 3)
    assert (stripes == stripes[:1, :, :1]).all()
    return [tuple(int(value) for value in stripe) for stripe in stripes[0, :, 0]]


def grey(*values: int) -> list[tuple[int, ...]]:
    return [(value,) * 3 for value in values]


@pytest.mark.parametrize(
    ("bits", "samples", "key", "expected"),
    [
        (1, (0, 1, 1, 0), None, (0, 255, 255, 0)),
        (1, (0, 1, 1, 0), 0, (255, 255, 255, 255)),
        (1, (0, 1, 1, 0), 1, (0, 255, 255, 0)),
        (2, (0, 1, 2, 3), None, (0, 85, 170, 255)),
        (2, (0, 1, 2, 3), 0, (255, 85, 170, 255)),
        (2, (0, 1, 2, 3), 1, (0, 255, 170, 255)),
        (2, (0, 1, 2, 3), 2, (0, 85, 255, 255)),
        (4, (0, 1, 8, 15), None, (0, 17, 136, 255)),
        (4, (0, 1, 8, 15), 1, (0, 255, 136, 255)),
        (4, (0, 1, 8, 15), 8, (0, 17, 255, 255)),
        (8, (0, 1, 128, 255), None, (0, 1, 128, 255)),
        (8, (0, 1, 128, 255), 1, (0, 255, 128, 255)),
        (16, (0, 128, 129, 65535), None, (0, 0, 1, 255)),
        (16, (0, 257 * 7, 257 * 7 + 1, 65535), 257 * 7, (0, 255, 7, 255)),
        (16, (0, 257 * 7, 257 * 7 + 1, 65535), 0, (255, 7, 7, 255)),
    ],
)
def test_grey_png(
    tmp_path: Path, bits: int, samples: tuple[int, ...], key: int | None, expected: tuple[int, ...]
) -> None:
    trns = b"" if key is None else struct.pack(">H", key)
    assert seen(png(tmp_path / "a.png", [(s,) for s in samples], bits, 0, key=trns)) == grey(*expected)


def test_colour_png_with_a_colour_that_stands_for_transparency(tmp_path: Path) -> None:
    """Two colours of 16 bits that differ in the lower half alone are two, and only one of them is the key."""
    eight = [(10, 20, 30), (10, 20, 31), (255, 0, 128), (0, 0, 0)]
    sixteen = [(0x0A0B, 0x1415, 0x1E1F), (0x0A0B, 0x1415, 0x1E20), (0xFFFF, 0x00FF, 0x8000), (0x0B0A, 0, 0)]
    for bits, stripes in ((8, eight), (16, sixteen)):
        path = tmp_path / "a.png"
        upper = [tuple(sample >> (bits - 8) for sample in pixel) for pixel in stripes]
        assert seen(png(path, stripes, bits, 2)) == upper
        for place, pixel in enumerate(stripes):
            expected = [(255,) * 3 if place == other else upper[other] for other in range(4)]
            assert seen(png(path, stripes, bits, 2, key=struct.pack(">HHH", *pixel))) == expected


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png(tmp_path: Path, bits: int) -> None:
    """Alpha 51 of 255 is a fifth: 200 / 5 + 255 * 4 / 5 = 244, 10 -> 206, 0 -> 204."""
    last = 2**bits - 1
    colours = [(0, 90, 255), *[(1, 1, 1)] * (last - 1), (200, 10, 0)]
    palette = bytes(value for colour in colours for value in colour)
    stripes = [(0,), (last,), (last,), (0,)]
    path = tmp_path / "a.png"
    first, other, white = (0, 90, 255), (200, 10, 0), (255, 255, 255)
    for alphas, expected in (
        ((), [first, other]),
        ((0,), [white, other]),
        ((255, *[255] * (last - 1), 0), [first, white]),
        ((0, *[255] * (last - 1), 51), [white, (244, 206, 204)]),
    ):
        a, b = expected
        assert seen(png(path, stripes, bits, 3, key=bytes(alphas), palette=palette)) == [a, b, b, a]


@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_alpha(tmp_path: Path, bits: int) -> None:
    full, fifth, step = 2**bits - 1, (2**bits - 1) // 5, 2**bits // 256
    stripes = [(100 * step, full), (100 * step, 0), (0, full), (0, fifth)]
    assert seen(png(tmp_path / "a.png", stripes, bits, 4)) == grey(100, 255, 0, 204)
    colours = [(200 * step, 10 * step, 0, alpha) for alpha in (full, 0, fifth)]
    assert seen(png(tmp_path / "b.png", [*colours, (0, 0, 0, full)], bits, 6)) == [
        (200, 10, 0), (255, 255, 255), (244, 206, 204), (0, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("bits", "samples", "expected"),
    [
        (1, (0, 1, 1, 0), (0, 255, 255, 0)),
        (2, (0, 1, 2, 3), (0, 85, 170, 255)),
        (4, (0, 1, 8, 15), (0, 17, 136, 255)),
        (8, (0, 1, 128, 255), (0, 1, 128, 255)),
        (12, (0, 16, 2056, 4095), (0, 1, 128, 255)),
        (16, (0, 257, 257 * 128, 65535), (0, 1, 128, 255)),
    ],
)
def test_grey_tiff_whichever_end_is_white(
    tmp_path: Path, bits: int, samples: tuple[int, ...], expected: tuple[int, ...], order: str
) -> None:
    stripes = [(sample,) for sample in samples]
    if (bits, order) != (12, ">"):  # which Pillow refuses
        assert seen(tiff(tmp_path / "a.tif", stripes, bits, 1, order=order)) == grey(*expected)
    inverted = tiff(tmp_path / "b.tif", [(2**bits - 1 - sample,) for sample in samples], bits, 0, order=order)
    if bits == 12 or (bits, order) == (16, ">"):
        with pytest.raises(ValueError, match=r"b\.tif: not a readable image"):
            load_image(inverted)
    else:
        assert seen(inverted) == grey(*expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (None, [(200, 10, 0), (255, 255, 255), (244, 206, 204), (0, 0, 0)]),  # taken for alpha
        (0, [(200, 10, 0), (200, 10, 0), (200, 10, 0), (0, 0, 0)]),  # means nothing
        (2, [(200, 10, 0), (255, 255, 255), (244, 206, 204), (0, 0, 0)]),
    ],
)
def test_colour_tiff_with_a_fourth_sample(
    tmp_path: Path, bits: int, extra: int | None, expected: list[tuple[int, ...]]
) -> None:
    full, fifth, step = 2**bits - 1, (2**bits - 1) // 5, 2**bits // 256
    stripes = [(200 * step, 10 * step, 0, alpha) for alpha in (full, 0, fifth)] + [(0, 0, 0, full)]
    assert seen(tiff(tmp_path / "a.tif", stripes, bits, 2, extra=extra)) == expected
    assert seen(tiff(tmp_path / "b.tif", [pixel[:3] for pixel in stripes], bits, 2)) == [
        (200, 10, 0), (200, 10, 0), (200, 10, 0), (0, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_a_tiff_that_are_weighted_by_alpha(tmp_path: Path, bits: int) -> None:
    """A fifth of (200, 10, 0) is stored as (40, 2, 0): what was stored, plus four fifths of white."""
    full, fifth, step = 2**bits - 1, (2**bits - 1) // 5, 2**bits // 256
    stripes = [
        (200 * step, 10 * step, 0, full), (0, 0, 0, 0), (40 * step, 2 * step, 0, fifth), (0, 0, 0, full),
    ]  # fmt: skip
    assert seen(tiff(tmp_path / "a.tif", stripes, bits, 2, extra=1)) == [
        (200, 10, 0), (255, 255, 255), (244, 206, 204), (0, 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "grey_of_a_fifth", "expected"),
    [(0, 100, (100, 100, 100, 0)), (1, 20, (100, 255, 224, 0)), (2, 100, (100, 255, 224, 0))],
)
def test_grey_tiff_with_alpha(
    tmp_path: Path, extra: int, grey_of_a_fifth: int, expected: tuple[int, ...]
) -> None:
    """100 / 5 + 204 = 224; weighted by alpha, nothing of 100 is 0, and a fifth of it 20."""
    stripes = [(100, 255), (0 if extra == 1 else 100, 0), (grey_of_a_fifth, 51), (0, 255)]
    assert seen(tiff(tmp_path / "a.tif", stripes, 8, 1, extra=extra)) == grey(*expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_tiff(tmp_path: Path, bits: int) -> None:
    last = 2**bits - 1
    columns = [
        [first, *[257] * (last - 1), other] for first, other in ((0, 51400), (23130, 2570), (65535, 0))
    ]
    palette = [value for column in columns for value in column]
    path = tiff(tmp_path / "a.tif", [(0,), (last,), (last,), (0,)], bits, 3, palette=palette)
    assert seen(path) == [(0, 90, 255), (200, 10, 0), (200, 10, 0), (0, 90, 255)]
    if bits == 8:
        alphas = [(0, 255), (last, 51), (last, 0), (0, 0)]
        path = tiff(tmp_path / "b.tif", alphas, bits, 3, palette=palette, extra=2)
        assert seen(path) == [(0, 90, 255), (244, 206, 204), (255, 255, 255), (255, 255, 255)]


def test_inks_and_luminance_of_a_tiff(tmp_path: Path) -> None:
    for bits, full in ((8, 255), (16, 65535)):
        inks = [(0, full, full, 0), (0, 0, 0, full), (0, 0, 0, 0), (full, 0, 0, 0)]
        assert seen(tiff(tmp_path / "a.tif", inks, bits, 5)) == [
            (255, 0, 0), (0, 0, 0), (255, 255, 255), (0, 255, 255),
        ]  # fmt: skip
    levels = [(0, 128, 128), (77, 128, 128), (255, 128, 128), (128, 128, 128)]
    assert seen(tiff(tmp_path / "b.tif", levels, 8, 6)) == grey(0, 77, 255, 128)


@pytest.mark.parametrize(
    ("bits", "sample_format", "message"),
    [
        (8, 2, "signed pixels have no defined white"),
        (16, 2, "signed pixels have no defined white"),
        (32, 1, "32-bit pixels have no defined white"),
        (32, 2, "32-bit pixels have no defined white"),
        (32, 3, "32-bit pixels have no defined white"),
    ],
)
def test_pixels_without_a_white_are_refused_in_a_tiff(
    tmp_path: Path, bits: int, sample_format: int, message: str
) -> None:
    path = tiff(tmp_path / "a.tif", [(0,), (1,), (2,), (3,)], bits, 1, sample_format=sample_format)
    with pytest.raises(ValueError, match=message):
        load_image(path)


def xmp_of(orientation: int) -> bytes:
    return b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def turned(path: Path, orientation: int, kept: str) -> Path:
    """A picture of 64 by 32 whose left stripe is dark, with its orientation kept in one way."""
    stripes = [(0,)] + [(200,)] * 7
    exif, xmp = exif_of(orientation), xmp_of(orientation)
    if path.suffix == ".tif":
        return tiff(
            path, stripes, 8, 1, tags={274: orientation} if kept == "exif" else {}, xmp=xmp * (kept == "xmp")
        )
    if path.suffix == ".png":
        found = chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
        if "xmp" in kept:
            found = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        place = {"after": found} if "after" in kept else {"before": found}
        return png(path, stripes, 8, 0, **place)
    picture = Image.new("L", (64, 32), 200)
    picture.paste(0, (0, 0, 8, 32))
    picture.convert("RGB").save(path, **({"exif": exif} if kept == "exif" else {"xmp": xmp}))
    return path


DARK = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
"""Orientation -> where what is stored on the left is seen."""


@pytest.mark.parametrize(
    ("ending", "kept"),
    [
        ("png", "exif"), ("png", "xmp"), ("png", "exif after"), ("png", "xmp after"), ("jpg", "exif"),
        ("jpg", "xmp"), ("webp", "exif"), ("webp", "xmp"), ("tif", "exif"), ("tif", "xmp"),
    ],
)  # fmt: skip
def test_there_is_one_answer_to_how_large_a_picture_is_upright(
    tmp_path: Path, ending: str, kept: str
) -> None:
    for orientation, side in DARK.items():
        path = turned(tmp_path / f"a.{ending}", orientation, kept)
        image = load_image(path)
        assert upright_size(path) == image.size == ((32, 64) if orientation > 4 else (64, 32))
        middle = {"left": (3, 16), "right": (60, 16), "top": (16, 3), "bottom": (16, 60)}
        dark = [name for name, place in middle.items() if image.getpixel(_inside(place, image))[0] < 100]
        assert dark == [side]


def _inside(place: tuple[int, int], image: Image.Image) -> tuple[int, int]:
    return min(place[0], image.width - 4), min(place[1], image.height - 4)


def test_only_metadata_behind_the_pixels_has_them_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    load = PngImageFile.load_prepare
    monkeypatch.setattr(PngImageFile, "load_prepare", lambda image: decoded.append(image) or load(image))
    for kept, count in (("exif", 0), ("xmp", 0), ("exif after", 1)):
        decoded.clear()
        assert upright_size(turned(tmp_path / f"{kept}.png", 6, kept)) == (32, 64)
        assert len(decoded) == count
