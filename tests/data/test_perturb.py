"""Pictures of perturbed examples."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from qhk.data.perturb import GREY, read_pictures
from qhk.errors import UserError
from qhk.settings.measuring import CorruptionKind
from qhk.types import Example, Perturbation


@pytest.fixture
def example(tmp_path: Path) -> Example:
    rng = np.random.default_rng(0)
    small = rng.integers(40, 216, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    return Example(
        id="a", dataset="d", image=tmp_path / "a.png", mos=3.0, mos_native=3.0, higher_is_better=True
    )


def seen(example: Example, family: str, kind: str, amount: float, *, seed: int = 0) -> np.ndarray:
    change = Perturbation(family=family, kind=kind, amount=amount, seed=seed)
    (image,) = read_pictures(replace(example, perturbation=change))
    assert (image.size, image.mode) == ((64, 48), "RGB")
    return np.asarray(image).astype(float)


def test_nothing_is_done_without_a_perturbation(example: Example) -> None:
    (image,) = read_pictures(example)
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(example.image)))


def test_degradations_differ_in_strength_alone(example: Example) -> None:
    original = np.asarray(Image.open(example.image)).astype(float)
    weak, strong = (seen(example, "degradation", "noise", amount) - original for amount in (4, 16))
    inside = (np.abs(strong) > 8) & (original > 80) & (original < 176)
    assert np.all(np.sign(weak[inside]) == np.sign(strong[inside]))
    assert np.array_equal(seen(example, "degradation", "noise", 16) - original, strong)
    assert not np.array_equal(seen(example, "degradation", "noise", 16, seed=1) - original, strong)
    assert not np.array_equal(seen(replace(example, id="b"), "degradation", "noise", 16) - original, strong)
    assert seen(example, "degradation", "darken", 0.5).mean() == pytest.approx(original.mean() / 2, rel=0.02)


def test_grey_is_even(example: Example) -> None:
    assert np.all(seen(example, "replacement", "grey", 0) == GREY)


KINDS = [
    pytest.param(kind, marks=[pytest.mark.slow] if kind == "glass_blur" else [])  # it is compiled first
    for kind in get_args(CorruptionKind)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_corruption_is_drawn_by_the_seed_and_leaves_numpys_stream_alone(
    kind: str, example: Example
) -> None:
    pytest.importorskip("imagecorruptions", exc_type=ImportError)
    original = np.asarray(Image.open(example.image)).astype(float)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    mild, severe = (seen(example, "corruption", kind, severity) for severity in (1, 5))
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[arg-type]
    np.random.seed(4)
    assert np.array_equal(seen(example, "corruption", kind, 5), severe)
    assert np.abs(mild - original).mean() > 0
    if kind != "frost":  # another part of the frost may lie over so small a picture
        assert np.abs(severe - original).mean() > np.abs(mild - original).mean()


def test_corruptions_of_a_small_picture_are_refused(example: Example) -> None:
    Image.open(example.image).resize((31, 40)).save(example.image)
    with pytest.raises(UserError, match=r"a\.png: 31x40, corruptions need 32 pixels on each side"):
        seen(example, "corruption", "fog", 1)


def test_without_the_library_one_line_says_what_to_install(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(
        UserError, match=r"perturbation\.corruptions: .*pip install 'qhk\[robustness\]'"
    ) as caught:
        seen(example, "corruption", "fog", 1)
    assert "\n" not in str(caught.value)
