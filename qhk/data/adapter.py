"""What an adapter is: how one official format is found, read and split. Image matching is shared."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qhk.errors import UserError

Options = Mapping[str, str | int | float | bool | None]

IMAGE_ENDINGS = frozenset({"png", "bmp", "jpg", "jpeg", "tif", "tiff", "webp", "gif"})
VIDEO_ENDINGS = frozenset({"mp4", "mkv", "mov", "avi", "webm", "m4v", "flv"})


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """One row of a label file. ``score`` and ``std`` are native, ``where`` names file and row.

    ``name`` is the row's id and, unless ``pictures`` says otherwise, its one picture. ``pictures`` names
    several in the order in which a prompt shows them; rows may then share a picture. ``score`` is None
    in a set that has labels only, ``normalised`` the score on [1, 5] where the file has it too.
    ``left_out`` says why a row is not used, for the list that the user gets. ``reference`` is kept in one
    spelling of accents (NFC), since contents are compared by it.
    """

    name: str
    score: float | None
    where: str
    normalised: float | None = None
    std: float | None = None
    reference: str | None = None
    split: str | None = None
    labels: Mapping[str, str | float] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    left_out: str | None = None

    def __post_init__(self) -> None:
        if self.reference is not None:
            object.__setattr__(self, "reference", unicodedata.normalize("NFC", self.reference))


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One format.

    ``layout``: the expected folder, in one line, for messages. ``higher_is_better``: polarity of the native
    score, None where only the user knows. ``protocols``: names of its own splits, beside the common ones.
    ``options``: the option keys it takes, beside those of the common splits. ``expected(root, protocol,
    options)``: what must exist, each entry a tuple of alternatives. ``images(root, options)``: the folders
    that hold images. ``read_labels(root, options)``: the rows. ``assign_splits(rows, protocol, root,
    options)``: train, validation, test or None (not used) for each row, under one of ``protocols``.
    ``scored``: whether its rows have a score; where they have labels only, bounds, normalisation and polarity
    are null. ``unpack(root, options, cache, progress)``: the folder that the other functions get, for formats
    that keep images inside other files. ``endings``: which files ``images`` holds. ``derive(file, options,
    cache)``: the pictures that stand for a file that is none itself.
    """

    layout: str
    higher_is_better: bool | None
    expected: Callable[[Path, str, Options], list[tuple[Path, ...]]]
    images: Callable[[Path, Options], list[Path]]
    read_labels: Callable[[Path, Options], list[LabelRow]]
    protocols: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    assign_splits: Callable[[Sequence[LabelRow], str, Path, Options], list[str | None]] | None = None
    scored: bool = True
    endings: frozenset[str] = IMAGE_ENDINGS
    derive: Callable[[Path, Options, Path], tuple[Path, ...]] | None = None
    unpack: Callable[[Path, Options, Path, Callable[[int, int], None]], Path] | None = None


def first_existing(alternatives: Sequence[Path]) -> Path:
    """Return the first alternative that exists, or the first of all where none does."""
    return next((path for path in alternatives if path.exists()), alternatives[0])


def text_option(options: Options, key: str) -> str:
    """Return a required text option; raise ``UserError`` naming the key where it is absent or not text."""
    value = options.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"options.{key} must be given as text, got {value!r}")
    return value
