"""Pictures with one named degradation of one severity, or none: the rows that ``degradation_rows`` reads.

Every content is shown undamaged once and damaged five times; class and severity are balanced, and a
content is in one split only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from qhk.data.miniature.content import render_content
from qhk.data.miniature.distort import as_pixels, distort
from qhk.data.seeds import stream_generator
from qhk.tasks.forms.degradation import SEVERITIES

CLASSES = {"noise": "white_noise", "compression": "jpeg", "blur": "gaussian_blur", "darken": "darken"}
STRENGTHS = dict(zip(SEVERITIES, (0.1, 0.32, 0.55, 0.78, 1.0), strict=False))
"""Severity -> strength, for the five severities of a damaged picture."""

PER_CONTENT = 5
_STRIDE = 7
"""No common factor with the twenty damages: all come equally often, and mixed within a content."""

CONTENTS = {"train": 120, "test": 32}
COUNT = sum(CONTENTS.values()) * (PER_CONTENT + 1)


def write(root: Path, seed: int, size: int, report: Callable[[int], None]) -> None:
    """Write ``images/``, ``train.json`` and ``test.json``."""
    (root / "images").mkdir(parents=True)
    rows: dict[str, list[dict[str, str]]] = {split: [] for split in CONTENTS}
    for done, (split, content, turn, kind, severity) in enumerate(_cells(), start=1):
        pixels = render_content(stream_generator(seed, "miniature", "degradation", "content", content), size)
        if kind != "null":
            rng = stream_generator(seed, "miniature", "degradation", content, turn)
            pixels = distort(pixels, CLASSES[kind], STRENGTHS[severity], rng)
        name = f"{content:04d}_{turn}.png"
        as_pixels(pixels).save(root / "images" / name, compress_level=1)
        rows[split].append(
            {
                "image": name,
                "distortion_class": kind,
                "severity": severity,
                "reference": f"{content:04d}",
            }
        )
        report(done)
    for split, items in rows.items():
        (root / f"{split}.json").write_text(json.dumps(items, indent=1) + "\n")


def _cells() -> Iterator[tuple[str, int, int, str, str]]:
    """(split, content, turn, class, severity) of every picture."""
    damages = list(product(STRENGTHS, CLASSES))
    content = 0
    for split, count in CONTENTS.items():
        for within in range(count):
            yield split, content, 0, "null", "null"
            for turn in range(PER_CONTENT):
                place = (within * PER_CONTENT + turn) * _STRIDE % len(damages)
                severity, kind = damages[place]
                yield split, content, turn + 1, kind, severity
            content += 1
