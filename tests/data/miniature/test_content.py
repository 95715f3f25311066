from __future__ import annotations

import numpy as np
import pytest

from qhk.data.miniature.content import FAMILIES, LUMA, fractal, render_content


@pytest.mark.parametrize("size", [32, 64, 96])
def test_pristine_pictures_are_exposed_sharp_and_contrasty(size: int) -> None:
    for seed in range(24):
        picture = render_content(np.random.default_rng(seed), size)
        assert picture.shape == (size, size, 3)
        assert picture.min() >= 0 and picture.max() <= 255
        luma = picture @ LUMA
        assert 90 < luma.mean() < 155
        assert luma.std() > 25
        assert np.abs(np.diff(luma, axis=1)).mean() > 7  # fine detail at the scale of single pixels


def test_every_family_is_drawn_differently_and_repeats() -> None:
    pictures = [family(np.random.default_rng(3), 64) for family in FAMILIES.values()]
    assert len({picture.tobytes() for picture in pictures}) == len(FAMILIES) == 8
    for picture, family in zip(pictures, FAMILIES.values(), strict=True):
        assert (picture == family(np.random.default_rng(3), 64)).all()


def test_fractal_slope_moves_energy_to_low_frequencies() -> None:
    rough, smooth = (fractal(np.random.default_rng(0), 64, slope) for slope in (0.0, 2.0))
    assert rough.std() == pytest.approx(1.0)
    assert abs(smooth.mean()) < 1e-9
    assert np.abs(np.diff(smooth)).mean() < 0.2 * np.abs(np.diff(rough)).mean()
