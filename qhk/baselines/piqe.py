"""PIQE: how much of an image's active area is disturbed by blocks or by noise; nothing is learnt.

Source: Venkatanath et al., "Blind Image Quality Evaluation Using Perception Based Features", NCC 2015, with
the constants of MATLAB's ``piqe``, which papers report.
"""

from __future__ import annotations

import numpy as np

from qhk.baselines.natural import Array, normalised

BLOCK, SEGMENT = 16, 6
"""Pixels of a block's side, and of the segments of its edges."""

ACTIVE, IMPAIRED = 0.1, 0.1
"""Variance above which a block counts; standard deviation below which a segment of an edge disturbs."""

MIN_SIDE = 4
"""Pixels of the shorter side: what the window needs on either side of a pixel, and the pixel."""


def piqe(image: Array) -> float:
    """Return PIQE of a grey image ``(H, W)`` in 0 to 255: 0 to 100, less is better.

    An image without detail has 100.
    An image whose sides are no multiples of 16 is continued by its mirror image.
    """
    height, width = image.shape
    padded = np.pad(image, ((0, -height % BLOCK), (0, -width % BLOCK)), mode="symmetric")
    stretched = np.round(255 * padded / max(float(padded.max()), 1.0))
    blocks = _blocks(normalised(stretched, "nearest"))
    variance = blocks.var(axis=(1, 2), ddof=1)
    active = variance > ACTIVE
    blocks, variance = blocks[active], variance[active]
    blocky = _is_blocky(blocks)
    noisy = _is_noisy(blocks, np.sqrt(variance))
    disturbed = float((1 - variance)[blocky].sum() + variance[noisy].sum())
    return 100 * (disturbed + 1) / (len(blocks) + 1)


def _blocks(image: Array) -> Array:
    rows, columns = (side // BLOCK for side in image.shape)
    return image.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)


def _is_blocky(blocks: Array) -> np.ndarray:
    """Return whether any segment of a block's four edges is nearly even ``(n,)``; equations 6 and 7."""
    edges = np.stack([blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]], axis=1)
    segments = np.lib.stride_tricks.sliding_window_view(edges, SEGMENT, axis=2)
    even: np.ndarray = (segments.std(axis=3, ddof=1) < IMPAIRED).any(axis=(1, 2))
    return even


def _is_noisy(blocks: Array, deviation: Array) -> np.ndarray:
    """Return whether a block varies more than its centre stands out of its surround ``(n,)``.

    Equations 8 to 11.
    The surround is as MATLAB has it: once the first column of the centre is gone, the next one that it takes
    out is the one behind the second.
    """
    first = BLOCK // 2 - 1
    centre = blocks[:, :, first : first + 2].std(axis=(1, 2), ddof=1)
    surround = np.delete(blocks, (first, first + 2), axis=2).std(axis=(1, 2), ddof=1)
    ratio = np.divide(centre, surround, out=np.zeros_like(centre), where=surround > 0)
    largest = np.maximum(deviation, ratio)
    noisy: np.ndarray = deviation > 2 * np.abs(deviation - ratio) / largest
    return noisy
