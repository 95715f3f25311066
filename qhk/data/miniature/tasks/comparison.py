"""Two damaged versions of one reference and which is better: the rows that ``comparison_rows`` reads.

The label follows the latent quality of the miniature sets: ``Similar`` where the two differ by less than
``SIMILAR``, and two in five pairs each way beyond ``DIFFERENT``, as in Q-Insight's rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from qhk.data.miniature.content import FloatImage, Generator, render_content
from qhk.data.miniature.distort import as_pixels, distort
from qhk.data.miniature.opinion import latent_quality
from qhk.data.seeds import stream_generator

KINDS = ("gaussian_blur", "white_noise", "jpeg", "darken", "pixelate", "low_contrast")
SIMILAR, DIFFERENT = 0.06, 0.12
"""Largest difference of quality, in [0, 1], of a similar pair; smallest of a pair with a better one."""

TURNS = ("Image A", "Image B", "Image A", "Image B", "Similar")
"""The labels that each reference gets, one pair each."""

CONTENTS = {"train": 150, "test": 40}
COUNT = sum(CONTENTS.values()) * len(TURNS)


def write(root: Path, seed: int, size: int, report: Callable[[int], None]) -> None:
    """Write ``images/``, ``train.json`` and ``test.json``."""
    (root / "images").mkdir(parents=True)
    done, content = 0, 0
    for split, count in CONTENTS.items():
        rows: list[dict[str, str]] = []
        for _ in range(count):
            rows += _content_rows(root / "images", seed, size, content)
            content, done = content + 1, done + len(TURNS)
            report(done)
        (root / f"{split}.json").write_text(json.dumps(rows, indent=1) + "\n")


def _content_rows(folder: Path, seed: int, size: int, content: int) -> list[dict[str, str]]:
    reference = render_content(stream_generator(seed, "miniature", "comparison", "content", content), size)
    name = f"{content:04d}.png"
    as_pixels(reference).save(folder / name, compress_level=1)
    rows = []
    for turn, choice in enumerate(TURNS):
        rng = stream_generator(seed, "miniature", "comparison", content, turn)
        pair = {side: f"{content:04d}_{turn}_{side[-1].lower()}.png" for side in ("ImageA", "ImageB")}
        for file, pixels in zip(pair.values(), _pair(reference, choice, rng), strict=True):
            as_pixels(pixels).save(folder / file, compress_level=1)
        rows.append({"ref_image": name, **pair, "result": choice})
    return rows


def _pair(reference: FloatImage, choice: str, rng: Generator) -> tuple[FloatImage, FloatImage]:
    """A and B, drawn until they differ as ``choice`` says."""
    while True:
        (better, high), (worse, low) = sorted(
            (_version(reference, rng) for _ in range(2)), key=lambda version: version[1], reverse=True
        )
        if choice == "Similar" and high - low < SIMILAR:
            return (better, worse) if rng.random() < 0.5 else (worse, better)
        if choice != "Similar" and high - low > DIFFERENT:
            return (better, worse) if choice == "Image A" else (worse, better)


def _version(reference: FloatImage, rng: Generator) -> tuple[FloatImage, float]:
    """A damaged picture and its latent quality in [0, 1]."""
    kind, strength = KINDS[int(rng.integers(len(KINDS)))], rng.uniform(0.08, 1.0)
    pixels = distort(reference, kind, strength, rng)
    return pixels, latent_quality(reference, pixels, [(kind, strength)])
