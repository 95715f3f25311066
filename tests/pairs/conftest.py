from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.pairs.degrade import degrade_examples
from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.plan import Plan
from qhk.types import Example

STAGE_1 = {"noise": 45.0, "blur": 2.0, "jpeg": 5.0, "darken": 0.6}


def scene(width: int = 60, height: int = 48, seed: int = 0) -> Image.Image:
    """Smooth areas, an edge and some texture, so that every degradation finds something to spoil."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    base = 90 + 60 * np.sin(columns / 7 + seed) + 40 * (rows > height / 2)
    pixels = base[:, :, None] + np.array([0, 15, -20]) + rng.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def example(image: Path, *, id_: str | None = None, dataset: str = "set", mos: float = 3.25) -> Example:
    return Example(
        id=id_ or image.name,
        dataset=dataset,
        image=image,
        mos=mos,
        mos_native=mos * 20,
        higher_is_better=True,
        mos_std=0.5,
        reference="content 7",
        labels={"severity": "mild", "level": 2.0},
    )


def a_plan(kinds: Sequence[str] = tuple(STAGE_1), **changes: object) -> Plan:
    values: dict[str, object] = {
        "kinds": tuple(kinds),
        "level": "stage_1",
        "strengths": STAGE_1,
        "target": None,
        "tolerance": 0.02,
        "storage": "lossless",
        "seed": 0,
    }
    return Plan(**values | changes)  # type: ignore[arg-type]


def no_progress(done: int, total: int) -> None:
    pass


Pictures = Callable[[int], list[Example]]


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Makes so many examples, in a folder with a blank and a non-Latin letter in its name."""

    def make(count: int) -> list[Example]:
        folder = tmp_path / "my pictures é"
        folder.mkdir(exist_ok=True)
        examples = []
        for number in range(count):
            path = folder / f"{number:03d}.png"
            scene(seed=number).save(path)
            examples.append(example(path, mos=1.0 + number % 5))
        return examples

    return make


@pytest.fixture
def manifest(tmp_path: Path) -> PairManifest:
    return open_pairs(tmp_path / "work" / "pairs.jsonl", create=True)


@pytest.fixture
def degraded_six(manifest: PairManifest, pictures: Pictures) -> PairManifest:
    """Six pairs by the published operations."""
    degrade_examples(manifest, {"train": pictures(6)}, plan=a_plan(), workers=0, progress=no_progress)
    assert len(manifest) == 6
    return manifest


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
