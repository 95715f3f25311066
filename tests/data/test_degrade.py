from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from qhk.data.degrade import KINDS, check_strength, degrade

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
