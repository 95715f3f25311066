"""What of a picture the policy is shown: the whole, or native pixels from some of it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from qhk.settings.data import FramingSettings


def frame(
    image: Image.Image, framing: FramingSettings, rng: np.random.Generator | None = None
) -> Image.Image:
    """Return what is shown of ``image``: pixels are left out and moved, never changed.

    ``whole`` is the picture itself. ``crop`` is a square of ``side`` pixels. ``fragments`` are
    ``pieces`` x ``pieces`` squares of ``side`` pixels, one from each cell of an even grid, laid side by side
    (FAST-VQA, arXiv 2207.02595, section 3.1). With ``rng`` a square lies anywhere in its cell (that of a crop
    is the whole picture), else in the middle of it. Where cells are narrower than ``side``, squares overlap;
    where the picture is, they have its width.
    """
    if framing.form == "whole":
        return image
    number = framing.pieces or 1
    size = framing.shown_size(*image.size)
    width, height = (length // number for length in size)
    shown = Image.new(image.mode, size)
    for row in range(number):
        for column in range(number):
            left = _offset(image.width, width, cell=column, cells=number, rng=rng)
            top = _offset(image.height, height, cell=row, cells=number, rng=rng)
            square = image.crop((left, top, left + width, top + height))
            shown.paste(square, (column * width, row * height))
    return shown


def _offset(length: int, side: int, *, cell: int, cells: int, rng: np.random.Generator | None) -> int:
    """Return where a square begins along an axis of ``length`` pixels, within the picture."""
    room = length / cells - side
    within = room * (0.5 if rng is None or room <= 0 else float(rng.random()))
    return min(max(0, round(length * cell / cells + within)), length - side)
