"""BRISQUE, NIQE and PIQE against other programs' values on three pictures, and at their edges.

Recorded with pybrisque 1.0 (features), libsvm 3.37 (the regression), scikit-video 1.1.11 (NIQE), pypiqe 1.2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qhk.baselines import brisque, niqe, piqe
from qhk.baselines.natural import Array, fit_asymmetric, fit_symmetric, mean_of, normalised, scale_of


def scene() -> Array:
    """Return a smooth picture with fine detail ``(200, 296)``, no multiple of 16, of 96 or of an odd half."""
    rng = np.random.default_rng(7)
    wide = gaussian_filter(rng.normal(size=(200, 296)), 8)
    fine = gaussian_filter(rng.normal(size=(200, 296)), 1.2)
    grey: Array = np.clip(np.round(128 + wide / wide.std() * 45 + fine / fine.std() * 18), 0, 255)
    return grey


def noisy() -> Array:
    rng = np.random.default_rng(8)
    grey: Array = np.clip(np.round(scene() + rng.normal(0, 20, (200, 296))), 0, 255)
    return grey


def blocky() -> Array:
    return np.repeat(np.repeat(scene()[::4, ::4], 4, 0), 4, 1)


PICTURES: dict[str, Callable[[], Array]] = {"scene": scene, "noisy": noisy, "blocky": blocky}


@pytest.mark.parametrize(
    ("name", "value"),
    [("scene", 18.273096837777437), ("noisy", 57.29753829108656), ("blocky", 43.6569337833539)],
)
def test_piqe_is_matlabs(name: str, value: float) -> None:
    assert piqe.piqe(PICTURES[name]()) == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "value", "rel"),
    # Where zeros are rare the two agree to float32; scikit-video counts zeros to the right side.
    [("noisy", 29.559673309326172, 1e-5), ("scene", 40.69898223876953, 6e-3), ("blocky", 28.798606, 2e-2)],
)
def test_niqe_is_scikit_videos(name: str, value: float, rel: float) -> None:
    assert niqe.niqe(PICTURES[name]()) == pytest.approx(value, rel=rel)


def test_brisque_has_the_features_of_the_authors_program_and_libsvms_regression() -> None:
    found = brisque._features(noisy())
    theirs = [
        2.725, 0.574276, 0.925, -0.031461, 0.318666, 0.269464, 0.931, -0.031101, 0.317117, 0.268659, 0.896,
        -0.023161, 0.324928, 0.287619, 0.897, -0.021875, 0.321659, 0.286557,
    ]  # fmt: skip
    np.testing.assert_allclose(found, theirs, atol=6e-7)
    values = {name: brisque.brisque(picture()) for name, picture in PICTURES.items()}
    assert values == pytest.approx({"scene": 30.08786, "noisy": 68.14058, "blocky": 112.83875}, abs=1e-3)


def test_shapes_of_known_distributions_are_found() -> None:
    rng = np.random.default_rng(0)
    assert fit_symmetric(rng.normal(0, 3, 400_000)) == pytest.approx((2.0, 9.0), rel=0.02)
    assert fit_symmetric(rng.laplace(0, 1, 400_000)) == pytest.approx((1.0, 2.0), rel=0.02)
    # Half a Laplace of scale 1 to the left, one of scale 2 to the right, as often as they are wide.
    values = rng.exponential(1, 900_000) * np.where(rng.random(900_000) < 1 / 3, -1.0, 2.0)
    shape, left, right = fit_asymmetric(values)
    scales = scale_of(shape, left), scale_of(shape, right)
    assert (shape, *scales) == pytest.approx((1.0, 1.0, 2.0), rel=0.03)
    assert mean_of(shape, *scales) == pytest.approx(values.mean(), rel=0.05)


def test_normalised_luminance_by_hand() -> None:
    """In the middle of a column of 100 on 0: its share of the window, and the deviation that leaves."""
    image = np.zeros((15, 15))
    image[:, 7] = 100.0
    share = 1 / np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2)).sum()
    deviation = 100 * np.sqrt(share - share**2)
    expected = (100 - 100 * share) / (deviation + 1)
    assert normalised(image, "nearest")[7, 7] == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 128.0])
def test_a_picture_without_detail_has_a_value(value: float) -> None:
    flat = np.full((200, 200), value)
    assert piqe.piqe(flat) == 100.0
    assert np.isfinite(niqe.niqe(flat))
    assert np.isfinite(brisque.brisque(flat))


def test_the_smallest_pictures_have_values() -> None:
    rng = np.random.default_rng(0)
    for measure, side in ((brisque.brisque, brisque.MIN_SIDE), (piqe.piqe, piqe.MIN_SIDE)):
        assert np.isfinite(measure(rng.uniform(0, 255, (side, side))))
    assert np.isfinite(niqe.niqe(rng.uniform(0, 255, (niqe.MIN_SIDE, niqe.MIN_SIDE))))
