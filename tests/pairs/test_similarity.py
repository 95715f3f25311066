from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from qhk.pairs.similarity import calibrated_copy, make_copy, structural
from tests.pairs.conftest import scene


def naive_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Wang's formula by loops over every window that lies inside, one channel."""
    place = np.arange(-5, 6)
    window = np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for row in range(5, first.shape[0] - 5):
        for column in range(5, first.shape[1] - 5):
            a = first[row - 5 : row + 6, column - 5 : column + 6]
            b = second[row - 5 : row + 6, column - 5 : column + 6]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * both + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return float(np.mean(values))


def test_against_loops_over_windows() -> None:
    first = scene(30, 26)
    second = Image.fromarray(np.asarray(first)[:, ::-1].copy())
    channels = [
        naive_ssim(*(np.asarray(image, dtype=float)[:, :, channel] for image in (first, second)))
        for channel in range(3)
    ]
    assert structural(first, second) == pytest.approx(np.mean(channels), abs=1e-9)
    assert structural(first, first) == pytest.approx(1.0)


def test_large_pictures_are_averaged_first() -> None:
    large, small = scene(700, 530), scene(700, 530).reduce(2)
    darker, small_darker = (image.point(lambda value: value // 2) for image in (large, large))
    assert structural(large, darker) == pytest.approx(structural(small, small_darker.reduce(2)))


@pytest.mark.parametrize("kind", ["noise", "blur", "jpeg", "darken", "low_contrast", "downsample"])
def test_calibrated_strength_meets_the_target(kind: str) -> None:
    source = scene(160, 128)
    arguments = {"kind": kind, "stream": (0, "group_1", 1), "storage": "lossless"}
    made = calibrated_copy(source, source, target=0.8, tolerance=0.03, **arguments)  # type: ignore[arg-type]
    assert made is not None and abs(made.ssim - 0.8) <= 0.03
    again = make_copy(source, source, strength=made.strength, **arguments)  # type: ignore[arg-type]
    assert again.content == made.content
    copy = Image.open(io.BytesIO(made.content)).convert("RGB")
    assert structural(source, copy) == made.ssim


def test_a_flat_picture_cannot_be_blurred() -> None:
    flat = Image.new("RGB", (64, 64), (120, 120, 120))
    arguments = {"target": 0.8, "tolerance": 0.03, "stream": (0, "group_1", 1), "storage": "lossless"}
    assert calibrated_copy(flat, flat, kind="blur", **arguments) is None  # type: ignore[arg-type]
    assert calibrated_copy(flat, flat, kind="noise", **arguments) is not None  # type: ignore[arg-type]


def test_streams_differ_by_group_version_and_seed() -> None:
    source = scene()
    streams = [(0, "group_1", 1), (0, "group_2", 1), (0, "group_1", 2), (1, "group_1", 1)]
    copies = {
        make_copy(source, source, kind="noise", strength=9.0, stream=stream, storage="lossless").content
        for stream in streams
    }
    assert len(copies) == 4
