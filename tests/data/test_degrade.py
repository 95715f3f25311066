from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from qhk.data.degrade import KINDS, MASK_PATCH, check_strength, degrade, eased_strength

STRENGTHS = {"noise": 45.0, "blur": 2.0, "jpeg": 5.0, "darken": 0.6}


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(60, 190, (12, 10, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((50, 60), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", KINDS)
def test_same_size_seeded_and_source_untouched(picture: Image.Image, kind: str) -> None:
    before = picture.tobytes()
    once, again, other = (
        degrade(picture, kind=kind, strength=STRENGTHS[kind], rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert once.size == picture.size
    assert once.mode == "RGB"
    assert once.tobytes() == again.tobytes()
    assert once.tobytes() != before
    assert picture.tobytes() == before
    assert (once.tobytes() == other.tobytes()) is (kind != "noise")


def test_noise_has_the_given_deviation_per_channel() -> None:
    grey = Image.new("RGB", (300, 300), (128, 128, 128))
    noisy = np.asarray(degrade(grey, kind="noise", strength=20.0, rng=np.random.default_rng(0)), dtype=float)
    assert noisy.std(axis=(0, 1)) == pytest.approx([20.0] * 3, rel=0.02)
    assert noisy.mean() == pytest.approx(127.5, abs=0.3)  # truncation to whole grey levels costs half a level
    assert abs(np.corrcoef(noisy[..., 0].ravel(), noisy[..., 1].ravel())[0, 1]) < 0.02


def test_noise_is_clipped_not_wrapped() -> None:
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    noisy = np.asarray(degrade(white, kind="noise", strength=30.0, rng=np.random.default_rng(0)))
    assert (noisy == 255).mean() > 0.45
    assert noisy.min() > 100


def test_blur_darken_and_jpeg_by_hand(picture: Image.Image) -> None:
    rng = np.random.default_rng(0)
    blurred = degrade(picture, kind="blur", strength=2.0, rng=rng)
    assert blurred.tobytes() == picture.filter(ImageFilter.GaussianBlur(2.0)).tobytes()
    dark = np.asarray(degrade(picture, kind="darken", strength=0.6, rng=rng), dtype=float)
    assert np.abs(dark - 0.6 * np.asarray(picture, dtype=float)).max() <= 1.0
    expected = picture
    for _ in range(4):
        buffer = io.BytesIO()
        expected.save(buffer, "JPEG", quality=5)
        expected = Image.open(buffer).convert("RGB")
    assert degrade(picture, kind="jpeg", strength=5, rng=rng).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("kind", "strength"), [("noise", -1), ("jpeg", 0), ("jpeg", 5.5), ("darken", 1.2)])
def test_strength_out_of_range(kind: str, strength: float) -> None:
    with pytest.raises(ValueError, match=rf"twin\.strengths\.{kind} must be"):
        check_strength(kind, strength)


def test_unknown_kind(picture: Image.Image) -> None:
    with pytest.raises(ValueError, match=r"twin\.kinds has 'fog'"):
        degrade(picture, kind="fog", strength=1.0, rng=np.random.default_rng(0))


def test_grey_mixes_in_an_even_grey(picture: Image.Image) -> None:
    rng = np.random.default_rng(0)
    whole = degrade(picture, kind="grey", strength=1.0, rng=rng)
    assert whole.size == picture.size and set(whole.getdata()) == {(128, 128, 128)}
    half = np.asarray(degrade(picture, kind="grey", strength=0.5, rng=rng), dtype=float)
    assert np.abs(half - (np.asarray(picture, dtype=float) + 128) / 2).max() <= 1.0


@pytest.mark.parametrize("size", [(140, 70), (150, 75)])
def test_mask_blackens_whole_patches_at_their_share(size: tuple[int, int]) -> None:
    white = Image.new("RGB", size, (255, 255, 255))
    shares = []
    for seed in range(40):
        pixels = np.asarray(degrade(white, kind="mask", strength=0.6, rng=np.random.default_rng(seed)))
        assert pixels.shape[:2] == size[::-1]
        for row in range(0, size[1], MASK_PATCH):
            for column in range(0, size[0], MASK_PATCH):
                patch = pixels[row : row + MASK_PATCH, column : column + MASK_PATCH]
                assert len(np.unique(patch)) == 1
        shares.append((pixels == 0).mean())
    assert np.mean(shares) == pytest.approx(0.6, abs=0.04) and len(set(shares)) > 10
    for strength, value in ((0.0, 255), (1.0, 0)):
        pixels = np.asarray(degrade(white, kind="mask", strength=strength, rng=np.random.default_rng(0)))
        assert np.unique(pixels).tolist() == [value]


def test_crop_shows_a_part_at_a_seeded_place() -> None:
    """A quarter of the area of a picture of columns 0 to 199, enlarged: half as many columns, wherever."""
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8), (100, 200))
    picture = Image.fromarray(np.repeat(columns[..., None], 3, axis=2))
    firsts = set()
    for seed in range(8):
        part = degrade(picture, kind="crop", strength=0.75, rng=np.random.default_rng(seed))
        pixels = np.asarray(part, dtype=int)[..., 0]
        assert part.size == picture.size
        assert pixels[50, -1] - pixels[50, 0] == pytest.approx(99, abs=2)
        firsts.add(int(pixels[50, 0]))
    assert len(firsts) > 3 and max(firsts) <= 101
    rng = np.random.default_rng(0)
    assert degrade(picture, kind="crop", strength=0.0, rng=rng).tobytes() == picture.tobytes()


@pytest.mark.parametrize("kind", ["grey", "mask", "crop"])
def test_what_hides_begins_with_nothing_hidden(picture: Image.Image, kind: str) -> None:
    assert eased_strength(kind, 0.8, 0.25) == pytest.approx(0.2) and eased_strength(kind, 0.8, 0.0) == 0.0
    nothing = degrade(picture, kind=kind, strength=0.0, rng=np.random.default_rng(0))
    assert nothing.tobytes() == picture.tobytes()
    with pytest.raises(ValueError, match=f"twin.strengths.{kind} must be in"):
        check_strength(kind, 1.5)
