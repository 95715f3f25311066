from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from qhk.data.degrade import degrade
from qhk.data.seeds import stream_generator
from qhk.pairs.operations import OPERATIONS, apply_operation, check_operation, encode_copy
from qhk.pairs.similarity import structural
from tests.pairs.conftest import STAGE_1, scene


def apply(image: Image.Image, kind: str, strength: float, seed: int = 0) -> Image.Image:
    rng = stream_generator(seed, "test")
    return apply_operation(image, kind=kind, strength=strength, rng=rng)


def middle(kind: str) -> float:
    known = OPERATIONS[kind]
    value = known.mildest + 0.3 * (known.strongest - known.mildest)
    return float(round(value)) if known.whole else value


@pytest.mark.parametrize("kind", OPERATIONS)
def test_every_kind_keeps_the_grid_and_the_source_and_follows_its_stream(kind: str) -> None:
    image = scene(61, 47)
    before = image.tobytes()
    first, again = (apply(image, kind, middle(kind)) for _ in range(2))
    assert first.size == (61, 47) and first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != before
    assert image.tobytes() == before


@pytest.mark.parametrize("kind", OPERATIONS)
def test_more_strength_is_less_similar(kind: str) -> None:
    image, known = scene(128, 96), OPERATIONS[kind]
    strengths = np.linspace(known.mildest, known.strongest, 5)
    if known.whole:
        strengths = np.round(strengths)
    likeness = [structural(image, apply(image, kind, float(strength))) for strength in strengths]
    assert likeness[0] == max(likeness), likeness
    assert likeness[-1] < likeness[0] - 0.01, likeness
    assert all(later < earlier + 0.02 for earlier, later in zip(likeness, likeness[1:], strict=False)), (
        likeness
    )


@pytest.mark.parametrize("kind", STAGE_1)
def test_published_kinds_are_the_data_rooms_own(kind: str) -> None:
    ours = apply(scene(), kind, STAGE_1[kind], seed=3)
    theirs = degrade(scene(), kind=kind, strength=STAGE_1[kind], rng=stream_generator(3, "test"))
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("kind", [*STAGE_1, "webp", "motion_blur"])
def test_lossless_files_decode_to_the_very_pixels(kind: str) -> None:
    rng = stream_generator(1, "test")
    content, extension = encode_copy(scene(), kind=kind, strength=middle(kind), rng=rng, storage="lossless")
    assert extension == (".jpg" if kind == "jpeg" else ".png")
    stored = Image.open(io.BytesIO(content))
    assert stored.format == ("JPEG" if kind == "jpeg" else "PNG")
    assert stored.convert("RGB").tobytes() == apply(scene(), kind, middle(kind), seed=1).tobytes()


def test_published_storage_is_jpeg() -> None:
    content, extension = encode_copy(
        scene(), kind="blur", strength=2.0, rng=stream_generator(1, "test"), storage="published"
    )
    assert extension == ".jpg" and Image.open(io.BytesIO(content)).format == "JPEG"


def test_hand_worked_values() -> None:
    grey = Image.new("RGB", (40, 40), (100, 100, 100))
    assert apply(grey, "darken", 0.5).getpixel((3, 3)) == (50, 50, 50)
    assert apply(grey, "brighten", 1.5).getpixel((3, 3)) == (150, 150, 150)
    assert apply(grey, "gamma", 2.0).getpixel((3, 3)) == (39, 39, 39)  # 255 (100/255)^2 = 39.2
    assert apply(grey, "haze", 0.5).getpixel((3, 3)) == (157, 159, 161)
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    assert apply(red, "desaturate", 0.0).getpixel((3, 3)) == (76, 76, 76)  # 0.299 x 255
    pepper = np.asarray(apply(grey.resize((200, 200)), "salt_and_pepper", 0.1))
    assert np.mean(pepper != 100) == pytest.approx(0.1, abs=0.01)
    dots = np.zeros((41, 41, 3), dtype=np.uint8)
    dots[20, 20] = 255
    disc = np.asarray(apply(Image.fromarray(dots), "defocus", 3))[:, :, 0]
    assert np.count_nonzero(disc) == 29  # lattice points in a disc of radius 3
    shaken = np.asarray(apply(Image.fromarray(dots), "motion_blur", 10))[:, :, 0]
    assert 8 <= np.count_nonzero(shaken) <= 11


@pytest.mark.parametrize(
    ("kind", "strength", "message"),
    [
        ("fog", 1.0, "'fog' is no degradation: choose from noise, blur"),
        ("noise", -1.0, r"key must be in \[0, 255\], got -1"),
        ("jpeg", 5.5, r"key must be a whole number in \[1, 95\], got 5.5"),
        ("few_colours", 1, r"\[2, 256\]"),
    ],
)
def test_impossible_strengths(kind: str, strength: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_operation(kind, strength, key="key")
