"""How alike two pictures are, and the strength that makes a copy as unlike as wanted."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from qhk.data.seeds import stream_generator
from qhk.pairs.operations import encode_copy, operation

VIEWING_SIDE = 256
"""Pictures are averaged over whole blocks until the shorter side is about this, as Wang recommends."""

STEPS = 24
"""Halvings of the range; the narrowest ranges need half as many."""


def structural(original: Image.Image, copy: Image.Image) -> float:
    """Return SSIM in [-1, 1] of two RGB pictures of one size: 1 for equal ones.

    Wang et al. 2004: Gaussian window of 11 pixels with sigma 1.5, population covariance, mean over R, G
    and B, after averaging blocks of f x f pixels with f = max(1, round(shorter side / 256)).
    """
    assert original.size == copy.size, (original.size, copy.size)
    factor = max(1, round(min(original.size) / VIEWING_SIDE))
    first, second = (np.asarray(image.reduce(factor), dtype=np.float64) for image in (original, copy))
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            first,
            second,
            channel_axis=2,
            data_range=255.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


@dataclass(frozen=True, kw_only=True)
class MadeCopy:
    """A degraded copy as a file's bytes: its strength, its SSIM to the source, the file's extension."""

    content: bytes
    extension: str
    strength: float
    ssim: float


def make_copy(
    source: Image.Image,
    start: Image.Image,
    *,
    kind: str,
    strength: float,
    stream: tuple[int, str, int],
    storage: str,
) -> MadeCopy:
    """Return ``start`` degraded once more, compared with ``source``.

    ``stream`` is (seed, group id, version): equal arguments give equal bytes wherever they are made.
    """
    seed, group_id, version = stream
    rng = stream_generator(seed, "pair pixels", group_id, version)
    content, extension = encode_copy(start, kind=kind, strength=strength, rng=rng, storage=storage)
    copy = Image.open(io.BytesIO(content)).convert("RGB")
    return MadeCopy(content=content, extension=extension, strength=strength, ssim=structural(source, copy))


def calibrated_copy(
    source: Image.Image,
    start: Image.Image,
    *,
    kind: str,
    target: float,
    tolerance: float,
    stream: tuple[int, str, int],
    storage: str,
) -> MadeCopy | None:
    """Return the copy of ``kind`` whose SSIM to the source is nearest to ``target``, or None.

    The strength is found by halving the operation's range, on the same random stream throughout, so
    that more strength only means less similarity. None means that no strength came within ``tolerance``:
    the picture is flat, or the kind has no such strength.
    """
    known = operation(kind)
    mild, strong = float(known.mildest), float(known.strongest)
    best: MadeCopy | None = None
    for step in range(STEPS):
        strength = strong if step == 0 else (mild + strong) / 2
        strength = float(round(strength)) if known.whole else round(strength, 6)
        if step > 0 and strength in (mild, strong) and known.whole:
            break
        made = make_copy(source, start, kind=kind, strength=strength, stream=stream, storage=storage)
        if best is None or abs(made.ssim - target) < abs(best.ssim - target):
            best = made
        if abs(made.ssim - target) <= tolerance / 4 or (step == 0 and made.ssim > target + tolerance):
            break
        if step > 0 and made.ssim > target:
            mild = strength
        elif step > 0:
            strong = strength
    return best if best is not None and abs(best.ssim - target) <= tolerance else None
