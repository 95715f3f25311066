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


def orient(image: Image.Image, augmentation: str, seed: int, *indices: int | str) -> Image.Image:
    """Return the picture in an orientation drawn from the stream (seed, "orientation", indices).

    ``none`` returns the picture itself and draws nothing.
    """
    choices = ORIENTATIONS[augmentation]
    if len(choices) == 1:
        return image
    chosen = choices[int(stream_generator(seed, "orientation", *indices).integers(len(choices)))]
    return image if chosen is None else image.transpose(chosen)
