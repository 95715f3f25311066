"""Any folder of images with a CSV of scores. Nothing is guessed: column, range and polarity are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, text_option
from qhk.data.tables import number, read_csv
from qhk.errors import UserError

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "validation": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [(root / text_option(options, "labels"),), (root / text_option(options, "images"),)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [root / text_option(options, "images")]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per line of ``options.labels``.

    ``options.image_column`` and ``options.score_column`` name the columns; ``reference_column`` and
    ``std_column`` may be null. ``split_column`` need not be there: only one protocol reads it.
    """
    path = root / text_option(options, "labels")
    image, score = text_option(options, "image_column"), text_option(options, "score_column")
    split, reference, std = (_optional(options, f"{key}_column") for key in ("split", "reference", "std"))
    columns = [column for column in (image, score, reference, std) if column is not None]
    rows = []
    for line, cells in read_csv(path, columns, optional=[split] if split else []):
        where = f"{path} line {line}"
        if not cells[image]:
            raise UserError(f"{where}: {image} is empty: name the image or remove the row")
        rows.append(
            LabelRow(
                name=cells[image],
                score=number(cells[score], where, score),
                where=where,
                std=number(cells[std], where, std) if std else None,
                reference=cells[reference] or None if reference else None,
                split=cells.get(split) if split else None,
            )
        )
    return rows


def assign_splits(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return each row's split under ``column``: what ``options.split_column`` says of it."""
    return [_named_split(row, options) for row in rows]


def _named_split(row: LabelRow, options: Options) -> str:
    """Return train, validation or test, also written val. Raises UserError for any other word, or none."""
    column = text_option(options, "split_column")
    if row.split is None:
        raise UserError(
            f"{row.where}: no column {column!r} (options.split_column): name one that holds train, val or "
            "test, or choose protocol=random"
        )
    split = _SPLITS.get(row.split.lower())
    if split is None:
        raise UserError(f"{row.where}: {column} is {row.split!r}, expected train, val, validation or test")
    return split


def _optional(options: Options, key: str) -> str | None:
    return None if options.get(key) is None else text_option(options, key)


ADAPTER = Adapter(
    layout="a folder of images (options.images) and a CSV with a header (options.labels)",
    higher_is_better=None,
    protocols=("column",),
    options=frozenset(
        {
            "labels",
            "images",
            "image_column",
            "score_column",
            "split_column",
            "reference_column",
            "std_column",
            "allow_unlabelled",
        }
    ),
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=assign_splits,
)
