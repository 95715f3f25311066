"""Orientations of a picture that leave its quality as it is: more views of a small training set."""

from __future__ import annotations

from PIL import Image

from qhk.data.seeds import stream_generator

_T = Image.Transpose
ORIENTATIONS: dict[str, tuple[Image.Transpose | None, ...]] = {
    "none": (None,),
    "flip": (None, _T.FLIP_LEFT_RIGHT),
    "dihedral": (
        None,
        _T.FLIP_LEFT_RIGHT,
        _T.FLIP_TOP_BOTTOM,
        _T.ROTATE_90,
        _T.ROTATE_180,
        _T.ROTATE_270,
        _T.TRANSPOSE,
        _T.TRANSVERSE,
    ),
}
"""By augmentation: the pixels are moved, never changed."""


def draw_orientation(augmentation: str, seed: int, *indices: int | str) -> Image.Transpose | None:
    """Return an orientation drawn from the stream (seed, "orientation", indices); None for upright.

    ``none`` draws nothing.
    """
    choices = ORIENTATIONS[augmentation]
    if len(choices) == 1:
        return None
    return choices[int(stream_generator(seed, "orientation", *indices).integers(len(choices)))]


def orient(image: Image.Image, orientation: Image.Transpose | None) -> Image.Image:
    """Return the picture in that orientation; None returns the picture itself."""
    return image if orientation is None else image.transpose(orientation)
