"""What an adapter is: how one official format is found, read and split. Image matching is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Options = Mapping[str, str | int | float | bool | None]


IMAGE_ENDINGS = frozenset({"png", "bmp", "jpg", "jpeg", "tif", "tiff", "webp", "gif"})
VIDEO_ENDINGS = frozenset({"mp4", "mkv", "mov", "avi", "webm", "m4v", "flv"})


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """One row of a label file. ``score`` and ``std`` are native, ``where`` names file and row.

    ``name`` is the row's id and, unless ``pictures`` says otherwise, its one picture. ``pictures`` names
    several in the order in which a prompt shows them; rows may then share a picture. ``score`` is None
    in a set that has labels only. ``left_out`` says why a row is not used, for the list that the user gets.
    """

    name: str
    score: float | None
    where: str
    std: float | None = None
    reference: str | None = None
    split: str | None = None
    labels: Mapping[str, str | float] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    left_out: str | None = None


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One format.

    ``layout``: the expected folder, in one line, for messages. ``higher_is_better``: polarity of the
    native score, None where only the user knows. ``protocols``: names of the splits on offer.
    ``options``: the option keys it takes. ``expected(root, protocol, options)``: what must exist, each
    entry a tuple of alternatives. ``images(root, options)``: the folders that hold images.
    ``read_labels(root, options)``: the rows. ``assign_splits(rows, protocol, root, options)``: train,
    validation, test or None (not used) for each row. ``scored``: whether its rows have a score; where they
    have labels only, bounds, normalisation and polarity are null. ``endings``: which files ``images`` holds.
    ``derive(file, options, cache)``: the pictures that stand for a file that is none itself.
    """

    layout: str
    higher_is_better: bool | None
    protocols: tuple[str, ...]
    options: frozenset[str]
    expected: Callable[[Path, str, Options], list[tuple[Path, ...]]]
    images: Callable[[Path, Options], list[Path]]
    read_labels: Callable[[Path, Options], list[LabelRow]]
    assign_splits: Callable[[Sequence[LabelRow], str, Path, Options], list[str | None]]
    scored: bool = True
    endings: frozenset[str] = IMAGE_ENDINGS
    derive: Callable[[Path, Options, Path], tuple[Path, ...]] | None = None


NAMES_OPTIONS = frozenset({"train_names", "test_names"})
"""Options of the protocol ``names``, which every official format offers."""


def first_existing(alternatives: Sequence[Path]) -> Path:
    """The first alternative that exists; the first of all where none does."""
    return next((path for path in alternatives if path.exists()), alternatives[0])


def text_option(options: Options, key: str) -> str:
    """A required text option. Raises ``ValueError`` naming the key when it is absent or not text."""
    value = options.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"options.{key} must be given as text, got {value!r}")
    return value


def all_or_names(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Splits for formats without an official one: ``all`` puts every row into test, ``names`` reads lists."""
    if protocol == "names":
        return split_by_names(rows, root, options)
    return ["test"] * len(rows)


def split_by_names(rows: Sequence[LabelRow], root: Path, options: Options) -> list[str | None]:
    """Splits by name lists: text files with one image name or one reference per line.

    ``options.train_names`` and ``options.test_names`` are paths, relative ones below the root; either
    may be null. Rows in neither list are not used. Raises ``ValueError`` when both are null, when a
    file is missing, when a listed name matches no row, or when a row is in both lists.
    """
    lists = {split: _read_names(root, options, f"{split}_names") for split in ("train", "test")}
    if not any(lists.values()):
        raise ValueError(
            "protocol names needs options.train_names or options.test_names: a file, one name per line"
        )
    splits: list[str | None] = []
    used: set[str] = set()
    for row in rows:
        keys = {name_key(row.name)} | ({name_key(row.reference)} if row.reference else set())
        found = [split for split, names in lists.items() if keys & names.keys()]
        if len(found) > 1:
            raise ValueError(f"{row.name} is in both options.train_names and options.test_names: keep one")
        used |= keys
        splits.append(found[0] if found else None)
    for split, names in lists.items():
        unknown = [text for key, text in names.items() if key not in used]
        if unknown:
            raise ValueError(
                f"options.{split}_names lists {unknown[0]!r} ({len(unknown)} in all), which has no label"
            )
    return splits


def name_key(name: str) -> str:
    """An image name without folder, extension and case: what two spellings of one name share."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
    stem, dot, ending = last.rpartition(".")
    return stem if dot and ending in IMAGE_ENDINGS | VIDEO_ENDINGS else last


def _read_names(root: Path, options: Options, key: str) -> dict[str, str]:
    if options.get(key) is None:
        return {}
    path = root / text_option(options, key)
    if not path.is_file():
        raise ValueError(f"options.{key}: no file {path}")
    lines = (line.strip().strip('"') for line in path.read_text(encoding="utf-8-sig").splitlines())
    return {name_key(line): line for line in lines if line}
