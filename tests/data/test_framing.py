"""What is shown of a picture: its own pixels, in the middle or drawn, whatever its size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qhk.data.framing import frame
from qhk.data.seeds import stream_generator
from qhk.settings.data import WHOLE, FramingSettings

CROP = FramingSettings(form="crop", side=8, pieces=None)
FRAGMENTS = FramingSettings(form="fragments", side=8, pieces=3)


def stream(*place: int) -> np.random.Generator:
    return stream_generator(0, "framing", *place)


def picture(width: int, height: int) -> Image.Image:
    """Every pixel tells its own place: column and row in red and green."""
    columns, rows = np.meshgrid(np.arange(width, dtype=np.uint8), np.arange(height, dtype=np.uint8))
    return Image.fromarray(np.stack([columns, rows, np.zeros_like(rows)], axis=2))


def corners(image: Image.Image, *, side: int) -> list[tuple[int, int]]:
    """The place that the first pixel of every square of ``side`` comes from, after a look at the others."""
    pixels = np.asarray(image).astype(int)
    found = []
    for top in range(0, pixels.shape[0], side):
        for left in range(0, pixels.shape[1], side):
            square = pixels[top : top + side, left : left + side]
            column, row = square[0, 0, :2]
            assert (square[..., 0] == column + np.arange(side)).all(), "uncut pixels, in order"
            assert (square[..., 1] == row + np.arange(side)[:, None]).all()
            found.append((int(column), int(row)))
    return found


def test_whole_is_the_picture_itself() -> None:
    image = picture(20, 10)
    assert frame(image, WHOLE) is image
    assert frame(image, WHOLE, stream(0)) is image


def test_a_crop_is_the_middle_or_anywhere() -> None:
    image = picture(40, 24)
    assert corners(frame(image, CROP), side=8) == [(16, 8)]
    drawn = Counter(corners(frame(image, CROP, stream(n)), side=8)[0] for n in range(400))
    columns, rows = {x for x, _ in drawn}, {y for _, y in drawn}
    assert (min(columns), max(columns), min(rows), max(rows)) == (0, 32, 0, 16)


def test_fragments_lie_in_the_cells_of_an_even_grid() -> None:
    image = picture(60, 45)
    middles = [(6 + 20 * x, round(3.5 + 15 * y)) for y in range(3) for x in range(3)]
    assert corners(frame(image, FRAGMENTS), side=8) == middles
    for n in range(50):
        for place, (column, row) in enumerate(corners(frame(image, FRAGMENTS, stream(n)), side=8)):
            assert 20 * (place % 3) <= column <= 20 * (place % 3) + 12
            assert 15 * (place // 3) <= row <= 15 * (place // 3) + 7


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    side=st.integers(8, 40),
    pieces=st.one_of(st.none(), st.integers(2, 5)),
    seed=st.one_of(st.none(), st.integers(0, 9)),
)
def test_any_size_keeps_to_the_picture_and_is_framed_once(
    width: int, height: int, side: int, pieces: int | None, seed: int | None
) -> None:
    framing = FramingSettings(form="crop" if pieces is None else "fragments", side=side, pieces=pieces)
    assert framing.shown_side == side * (pieces or 1)
    shown = frame(picture(width, height), framing, None if seed is None else stream(seed))
    wide, high = min(side, width), min(side, height)
    assert shown.size == (wide * (pieces or 1), high * (pieces or 1))
    pixels = np.asarray(shown).astype(int)
    assert pixels[..., 0].max() < width and pixels[..., 1].max() < height
    columns = pixels[0, :, 0].reshape(-1, wide)
    assert (columns == columns[:, :1] + np.arange(wide)).all()
    again = frame(shown, framing, stream(1))
    assert again.tobytes() == shown.tobytes() or width < side or height < side


def test_a_draw_follows_its_stream() -> None:
    draws = [frame(picture(60, 45), FRAGMENTS, stream(*place)).tobytes() for place in ((0,), (0,), (1,))]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"form": "crop"}, "side must be a number"),
        ({"form": "fragments", "side": 32}, "pieces must be a number"),
        ({"form": "whole", "side": 32}, "side 32 has no effect with form whole"),
        ({"form": "crop", "side": 32, "pieces": 2}, "pieces 2 has no effect with form crop"),
        ({"form": "crop", "side": 4}, "greater than or equal to 8"),
    ],
)
def test_sizes_belong_to_their_form(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FramingSettings.model_validate({"side": None, "pieces": None, **values})
