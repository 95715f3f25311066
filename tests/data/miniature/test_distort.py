from __future__ import annotations

import numpy as np
import pytest

from qhk.data.miniature.content import render_content
from qhk.data.miniature.distort import DISTORTIONS, distort
from qhk.data.miniature.opinion import ANNOYANCE, colour_loss, latent_quality, structure_loss

STRENGTHS = (0.1, 0.4, 0.7, 1.0)


@pytest.mark.parametrize("name", list(DISTORTIONS))
def test_difference_and_damage_grow_with_strength(name: str) -> None:
    """Averaged over contents; this is what makes quality something that can be learned."""
    errors, quality = np.zeros(4), np.zeros(4)
    for seed in range(8):
        picture = render_content(np.random.default_rng(seed), 64)
        for column, strength in enumerate(STRENGTHS):
            damaged = distort(picture, name, strength, np.random.default_rng(seed))
            assert damaged.shape == picture.shape
            assert damaged.min() >= 0 and damaged.max() <= 255
            errors[column] += np.abs(damaged - picture).mean()
            quality[column] += latent_quality(picture, damaged, [(name, strength)]) / 8
    assert (np.diff(errors) > 0).all()
    assert (np.diff(quality) < -0.02).all()
    assert quality[0] > 0.55


def test_tables_agree() -> None:
    assert set(ANNOYANCE) == set(DISTORTIONS)


def test_quality_of_an_untouched_picture_is_full() -> None:
    picture = render_content(np.random.default_rng(0), 64)
    assert latent_quality(picture, picture, []) == pytest.approx(1.0)
    assert structure_loss(picture, picture) == pytest.approx(0.0, abs=1e-12)
    assert colour_loss(picture, picture) == 0.0


def test_structure_loss_matches_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(0, 255, (9, 9, 3)) for _ in range(2))
    luma = np.array([0.299, 0.587, 0.114])
    a, b = x @ luma, y @ luma
    total, radius = 0.0, 6  # scipy cuts the window at 4 sigma = 6
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / 1.5) ** 2)
    window = np.outer(taps, taps) / taps.sum() ** 2
    pa, pb = (np.pad(plane, radius, mode="symmetric") for plane in (a, b))
    for row in range(9):
        for column in range(9):
            wa = pa[row : row + 13, column : column + 13]
            wb = pb[row : row + 13, column : column + 13]
            ma, mb = (window * wa).sum(), (window * wb).sum()
            va, vb = (window * wa**2).sum() - ma**2, (window * wb**2).sum() - mb**2
            cov = (window * wa * wb).sum() - ma * mb
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            total += (2 * ma * mb + c1) / (ma**2 + mb**2 + c1) * (2 * cov + c2) / (va + vb + c2)
    assert structure_loss(x, y) == pytest.approx(1 - total / 81, abs=1e-12)


def test_content_masks_noise() -> None:
    """The same noise costs less on a busy picture than on a flat one."""
    rng = np.random.default_rng(0)
    busy, flat = render_content(rng, 64), np.full((64, 64, 3), 120.0) + rng.normal(0, 3, (64, 64, 1))
    noise = [distort(picture, "white_noise", 0.5, np.random.default_rng(1)) for picture in (busy, flat)]
    loss = [
        1 - latent_quality(*pair, [("white_noise", 0.5)]) for pair in zip((busy, flat), noise, strict=True)
    ]
    assert loss[0] < loss[1]


def test_lengths_grow_with_the_picture() -> None:
    for size in (32, 64, 128):
        point = np.zeros((size, size, 3))
        point[size // 2, size // 2] = 255.0
        blurred = distort(point, "gaussian_blur", 0.8, np.random.default_rng(0))[..., 0]
        place = np.arange(size) - size // 2
        spread = np.sqrt((blurred.sum(axis=1) * place**2).sum() / blurred.sum())
        assert spread / size == pytest.approx(0.45 * (2.8 / 0.45) ** 0.8 / 64, rel=0.06)
