from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.data.image import check_header, load_image

BLACK, RED, WHITE = (0, 0, 0), (255, 0, 0), (255, 255, 255)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 30), BLACK)
    picture.paste(RED, (0, 0, 40, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored top is the right side
    path = saved(picture, tmp_path / "turned.png", exif=exif)
    loaded = load_image(path)
    assert loaded.size == (30, 40)
    assert loaded.getpixel((29, 20)) == RED
    assert loaded.getpixel((0, 20)) == BLACK


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (30, 30), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 15, 30))
    if mode == "P":
        flat = Image.new("P", (30, 30), 1)
        flat.putpalette([0, 0, 0, 200, 10, 10])
        flat.paste(0, (0, 0, 15, 30))
        path = saved(flat, tmp_path / "a.png", transparency=1)
    else:
        path = saved(picture.convert(mode), tmp_path / "a.png")
    loaded = load_image(path)
    assert loaded.mode == "RGB"
    assert loaded.getpixel((3, 3)) == BLACK
    assert loaded.getpixel((25, 3)) == WHITE


def test_half_transparent_mixes_with_white(tmp_path: Path) -> None:
    path = saved(Image.new("RGBA", (30, 30), (0, 0, 0, 128)), tmp_path / "a.png")
    assert load_image(path).getpixel((0, 0)) == (127, 127, 127)


def test_sixteen_bit_grey_keeps_its_tone(tmp_path: Path) -> None:
    values = np.full((30, 30), 257 * 200, dtype=np.uint16)
    values[0] = 257 * 10
    loaded = load_image(saved(Image.fromarray(values), tmp_path / "deep.png"))
    assert loaded.mode == "RGB"
    assert loaded.getpixel((5, 5)) == (200, 200, 200)
    assert loaded.getpixel((5, 0)) == (10, 10, 10)


def test_dark_sixteen_bit_stays_dark(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.full((30, 30), 200, dtype=np.uint16)), tmp_path / "dark.png")
    assert load_image(path).getpixel((0, 0)) == (1, 1, 1)


def test_cmyk_and_grey(tmp_path: Path) -> None:
    cmyk = load_image(saved(Image.new("CMYK", (30, 30), (0, 255, 255, 0)), tmp_path / "c.jpg", quality=100))
    assert cmyk.mode == "RGB"
    assert np.abs(np.array(cmyk.getpixel((9, 9))) - RED).max() < 6
    assert load_image(saved(Image.new("L", (30, 30), 77), tmp_path / "g.png")).getpixel((0, 0)) == (
        77,
        77,
        77,
    )


def test_missing_unreadable_truncated(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.png: no such image file"):
        load_image(tmp_path / "gone.png")
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    with pytest.raises(
        ValueError, match=r"text\.png: not a readable image \(cannot identify image file\): replace"
    ):
        load_image(text)
    whole = saved(Image.effect_noise((64, 64), 80), tmp_path / "whole.jpg")
    for ending in ("jpg", "png"):
        whole = saved(Image.effect_noise((64, 64), 80), tmp_path / f"whole.{ending}")
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"cut\.{ending}: not a readable image"):
            load_image(cut)


def test_size_limits(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (40, 27)), tmp_path / "small.png")
    with pytest.raises(ValueError, match="40x27 is too small: both sides need at least 28"):
        load_image(path)
    with pytest.raises(ValueError, match="40x27 is too large: at most 1000 pixels"):
        check_header(path, min_side=1, max_pixels=1000)
    assert check_header(path, min_side=27, max_pixels=1080) == (40, 27)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(Image.new("L", (200, 200)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"bomb\.png: too large to open safely"):
        load_image(path)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_several_pictures_in_one_file_are_refused(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in (BLACK, RED)]
    path = saved(frames[0], tmp_path / f"moving.{ending}", save_all=True, append_images=frames[1:])
    for read in (load_image, check_header):
        with pytest.raises(ValueError, match=rf"moving\.{ending}: holds several pictures"):
            read(path)
    still = load_image(saved(frames[1], tmp_path / f"still.{ending}"))
    assert np.abs(np.array(still.getpixel((0, 0))) - RED).max() < 6


def test_the_first_picture_of_a_cameras_file_is_the_photograph(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in (RED, BLACK)]
    path = saved(frames[0], tmp_path / "camera.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert Image.open(path).format == "MPO"
    assert np.abs(np.array(load_image(path).getpixel((0, 0))) - RED).max() < 6


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_white_are_refused(tmp_path: Path, kind: type) -> None:
    path = saved(Image.fromarray(np.ones((40, 40), kind)), tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif: 32-bit pixels have no defined white"):
        load_image(path)


def test_sixteen_bits_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5 40 40 65535\n" + np.full((40, 40), 257 * 90, ">u2").tobytes())
    assert load_image(path).getpixel((0, 0)) == (90, 90, 90)


def test_a_huge_text_in_a_small_picture_is_refused(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("comment", "x" * (1 << 22), zip=True)
    path = saved(Image.new("L", (40, 40)), tmp_path / "text.png", pnginfo=text)
    with pytest.raises(ValueError, match=r"text\.png: not a readable image \(Decompressed data too large"):
        load_image(path)


def test_damaged_orientation_is_no_orientation(tmp_path: Path) -> None:
    whole = saved(Image.new("RGB", (40, 30), RED), tmp_path / "whole.jpg").read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0\x63\0"
    path = tmp_path / "exif.jpg"
    path.write_bytes(whole[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + whole[2:])
    assert load_image(path).size == (40, 30)


def test_names_with_blanks_and_other_letters(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (40, 40), RED), tmp_path / "фото (1) 图片.png")
    assert load_image(path).getpixel((0, 0)) == RED
    with pytest.raises(ValueError, match=r"图.png: no such image file"):
        load_image(tmp_path / "图.png")


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.pgm"
    path.write_bytes(b"P5 20000 10000 255\n")  # the header says 200 megapixels, none follows
    with pytest.raises(ValueError, match=r"huge\.pgm: (20000x10000 is too large|too large to open safely)"):
        load_image(path)
