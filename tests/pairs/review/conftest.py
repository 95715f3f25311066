"""A manifest with real picture files, and the desk over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.records import pair_row
from qhk.pairs.review.desk import Desk
from qhk.pairs.review.queue import Queue
from qhk.pairs.review.reviews import Reviews
from tests.pairs.builders import degraded, source

TYPES = ("noise", "blur", "jpeg")


def write_pairs(folder: Path, count: int, *, width: int = 40, height: int = 30) -> Path:
    """The manifest of ``count`` pairs: plain originals, copies darker by 3 grey levels."""
    (folder / "images").mkdir(parents=True)
    (folder / "copies").mkdir()
    path = folder / "pairs.jsonl"
    manifest = open_pairs(path, create=True)
    rows = []
    for number in range(count):
        pixels = np.full((height, width, 3), (40 + number % 200, 100, 160), dtype=np.uint8)
        kind = TYPES[number % len(TYPES)]
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(pixels - 3).save(folder / "copies" / f"{number}_{kind}.png")
        copy = degraded(kind, path=f"copies/{number}_{kind}.png")
        own = source(f"{number}.png", width=width, height=height)
        rows.append(pair_row(f"group_{number:06d}", own, copy))
    manifest.append(rows)
    return path


def desk_over(path: Path, *, blind: bool = True) -> Desk:
    manifest = open_pairs(path)
    queue = Queue(manifest, order="manifest", scope="all", types=[])
    return Desk(reviews=Reviews(manifest), queue=queue, blind=blind, prefetch=2)


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[[int], Path]:
    return lambda count: write_pairs(tmp_path / "päirs 画", count)


@pytest.fixture
def manifest(pairs: Callable[[int], Path]) -> PairManifest:
    return open_pairs(pairs(7))
