"""Pictures as they are read for a perturbed example: degraded, corrupted, or greyed out."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

from qhk.data.degrade import GREY, degrade
from qhk.data.image import load_image
from qhk.data.seeds import stream_generator, stream_seed
from qhk.errors import UserError
from qhk.types import Example, Perturbation

OWN_SEED = ("impulse_noise", "glass_blur")
"""Corruptions that take a seed; the others draw from numpy's global stream."""

MIN_CORRUPTED = 32
"""Pixels of the shorter side that the library takes."""

_LOCK = threading.Lock()
"""Threads read pictures, and there is one global stream."""


def read_pictures(example: Example) -> list[Image.Image]:
    """Return the example's pictures (RGB) with its perturbation, each of its own size.

    Random parts follow seed, set, id, kind and the picture's place, not the strength: so the copies of one
    image differ in strength alone. Raises ``UserError`` naming a picture that cannot be read or corrupted.
    """
    images = [load_image(path) for path in example.images]
    change = example.perturbation
    if change is None:
        return images
    return [_perturbed(image, change, example, place) for place, image in enumerate(images)]


def _perturbed(image: Image.Image, change: Perturbation, example: Example, place: int) -> Image.Image:
    stream = (change.seed, "perturbation", example.dataset, example.id, change.kind, place)
    if change.family == "replacement":
        return Image.new("RGB", image.size, GREY)
    if change.family == "degradation":
        return degrade(image, kind=change.kind, strength=change.amount, rng=stream_generator(*stream))
    if min(image.size) < MIN_CORRUPTED:
        raise UserError(
            f"{example.images[place]}: {image.width}x{image.height}, corruptions need {MIN_CORRUPTED} pixels "
            "on each side; leave the set out, or choose perturbation=degradations"
        )
    return corrupt(image, kind=change.kind, severity=int(change.amount), seed=stream_seed(*stream) % 2**32)


def corrupt(image: Image.Image, *, kind: str, severity: int, seed: int) -> Image.Image:
    """Return a copy of ``image`` (RGB) corrupted by ``kind`` at ``severity`` 1 to 5, the same for each seed.

    Raises ``UserError`` where the library is not there. Source: Hendrycks and Dietterich, ICLR 2019.
    """
    try:
        from imagecorruptions import corrupt as corrupted
    except ImportError as error:
        raise UserError(
            f"perturbation.corruptions: {error}; pip install 'qhk[robustness]' (where there is no libGL: "
            "then opencv-python-headless in place of opencv-python)"
        ) from None
    seeded = {"seed": seed} if kind in OWN_SEED else {}
    with _LOCK:
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            pixels = corrupted(np.asarray(image), severity=severity, corruption_name=kind, **seeded)
        finally:
            np.random.set_state(state)
    return Image.fromarray(pixels)
