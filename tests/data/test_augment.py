"""Orientations move pixels and change none; they follow the seed and the example."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from qhk.data.augment import ORIENTATIONS, draw_orientation, orient

PICTURE = Image.fromarray(np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3))


@pytest.mark.parametrize(("augmentation", "count"), [("none", 1), ("flip", 2), ("dihedral", 8)])
def test_every_orientation_is_met_and_keeps_the_pixels(augmentation: str, count: int) -> None:
    drawn = {draw_orientation(augmentation, 0, "set", "id", epoch) for epoch in range(200)}
    seen = {orient(PICTURE, orientation).tobytes() for orientation in drawn}
    assert len(seen) == count == len(ORIENTATIONS[augmentation])
    assert all(sorted(pixels) == sorted(PICTURE.tobytes()) for pixels in seen)


def test_an_orientation_is_fixed_by_seed_and_indices() -> None:
    draws = [[draw_orientation("dihedral", seed, "id", epoch) for epoch in range(20)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_none_is_the_picture_itself() -> None:
    assert orient(PICTURE, draw_orientation("none", 0, "id")) is PICTURE
