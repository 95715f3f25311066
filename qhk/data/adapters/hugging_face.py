"""Hugging Face datasets on disk: a folder of ``save_to_disk``, or of Parquet files. Nothing is downloaded.

Images that lie inside the tables are written out once, byte for byte, below the cache, named by row and
digest; images given by path are read where they are. Nothing is decoded or encoded on the way.

Parquet files are told apart as the Hub tells them: the split is a word in the name of the file or of a folder
around it (``myset_test.parquet``, ``data/train-00000-of-00001.parquet``, ``<config>/test/0000.parquet``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qhk.data.adapter import Adapter, LabelRow, Options, text_option
from qhk.data.image import read_header
from qhk.data.json_records import number_field
from qhk.errors import UserError
from qhk.files import json_line, read_json_lines, reading, write_atomically, writing

ROWS, IMAGES = "rows.jsonl", "images"
BATCH = 64

_LAYOUT = 2
"""Goes into the name of what is unpacked: raise it when the same dataset is to give other rows."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")
_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``: the marks of a saved dataset, or Parquet files."""
    marks = (root / "dataset_dict.json", root / "dataset_info.json", root / ROWS)
    return [marks] if not _parquet_files(root) else []


def images(root: Path, options: Options) -> list[Path]:
    """Return the folder of the images that were written out."""
    return [root / IMAGES]


def unpack(root: Path, options: Options, cache: Path, progress: Callable[[int, int], None]) -> Path:
    """Return a folder below ``cache`` with the rows as JSON lines and the images that lay in the tables.

    It is made once for a dataset and a choice of columns, and again when a file of the dataset changes.
    Raises ``UserError`` naming split and row for a missing or unreadable image, score or column.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file())
    stats = [
        (path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files
    ]
    chosen = {
        key: options.get(key) for key in ("image_column", "score_column", "id_column", "reference_column")
    }
    identity = json.dumps([_LAYOUT, str(root.resolve()), stats, chosen, options.get("std_column")])
    folder = cache / "unpacked" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if (folder / ROWS).is_file():
        return folder
    with writing(folder):
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for split, place, total, record in _records(root):
        where = f"{root} split {split} row {place + 1}"
        lines.append(json_line(_unpacked(record, split, place, where, folder, options)))
        progress(place + 1, total)
    write_atomically(folder / ROWS, "".join(lines))
    return folder


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per row of the tables."""
    return [LabelRow(**{**row, "pictures": tuple(row["pictures"])}) for row in read_json_lines(root / ROWS)]


def assign_splits(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return each row's split under ``files``: the dataset's own.

    Raises ``UserError`` for one whose name does not say whether it is for training, validation or testing, or
    says several of these.
    """
    return [_named_split(row) for row in rows]


def _named_split(row: LabelRow) -> str:
    named = {_SPLITS[word] for word in _split_words(row.split or "")}
    if len(named) != 1:
        raise UserError(
            f"{row.where}: split {row.split!r} says {' and '.join(sorted(named)) or 'none'} of train, "
            "validation, test: rename the file or its folder, or choose protocol=random, all or names"
        )
    return named.pop()


def _split_words(name: str) -> list[str]:
    """Return the words of a name that say a split, parted as the Hub parts them."""
    return [word for word in _BETWEEN_WORDS.split(name.lower()) if word in _SPLITS]


def _unpacked(
    record: Mapping[str, Any], split: str, place: int, where: str, folder: Path, options: Options
) -> dict[str, Any]:
    columns = {role: options.get(f"{role}_column") for role in ("image", "score", "id", "reference", "std")}
    for role, column in columns.items():
        if column is not None and column not in record:
            raise UserError(
                f"{where}: no column {column!r} (options.{role}_column); columns present: {', '.join(record)}"
            )
    score = number_field(record, text_option(options, "score_column"), where)
    reference, std = columns["reference"], columns["std"]
    image = _image(record[text_option(options, "image_column")], f"{split}_{place:06d}", where, folder)
    return {
        "name": f"{split}/{place}" if columns["id"] is None else str(record[str(columns["id"])]),
        "pictures": [image],
        "score": score,
        "std": number_field(record, str(std), where) if std else None,
        "reference": str(record[str(reference)])
        if reference and record[str(reference)] is not None
        else None,
        "split": split,
        "where": where,
    }


def _image(value: Any, stem: str, where: str, folder: Path) -> str:
    """Where the image of a cell lies: its bytes are written below ``folder``, a path is kept."""
    cells = value if isinstance(value, list) else [value]
    if len(cells) != 1 or not isinstance(cells[0], dict | bytes | str):
        raise UserError(f"{where}: the image column holds {len(cells)} values, expected one image")
    cell = cells[0]
    content = cell.get("bytes") if isinstance(cell, dict) else cell if isinstance(cell, bytes) else None
    if content is None:
        path = cell.get("path") if isinstance(cell, dict) else cell
        if not isinstance(path, str) or not os.path.isfile(path):
            raise UserError(f"{where}: the image has no bytes, and there is no file {path!r}: add the file")
        return os.path.abspath(path)
    try:
        kind = read_header(Path("the image"), content)[1]
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    digest = hashlib.sha256(content).hexdigest()[:12]
    file = folder / IMAGES / f"{stem}_{digest}.{_ENDINGS.get(kind, kind.lower())}"
    with writing(file):
        partial = file.with_suffix(".tmp")
        partial.write_bytes(content)
        partial.replace(file)
    return str(file.resolve())


def _records(root: Path) -> Iterator[tuple[str, int, int, Mapping[str, Any]]]:
    """(split, place in it, its rows, row) with images as stored, a few rows in memory at a time."""
    parquet = _parquet_files(root)
    tables = _parquet_tables(root, parquet) if parquet else _saved_tables(root)
    seen: dict[str, int] = {}
    for split, total, table in tables:
        for record in table.to_pylist():
            place = seen.get(split, 0)
            seen[split] = place + 1
            yield split, place, total, record


def _parquet_files(root: Path) -> list[Path]:
    """The tables below ``root``; like the Hub, without hidden and private (``__``) files and folders."""
    files = sorted(root.rglob("*.parquet"))
    return [path for path in files if not any(_is_hidden(part) for part in path.relative_to(root).parts)]


def _is_hidden(part: str) -> bool:
    return part.startswith((".", "__"))


def _parquet_splits(root: Path, files: Sequence[Path]) -> list[str]:
    """The word for the split of each file, from its name and those of its folders below ``root``.

    Where they say none, it is what stands before the first dash of the name. Raises ``UserError`` where
    several configurations of a dataset lie below one root: their rows are not one set's.
    """
    splits: list[str] = []
    above: dict[str, Path] = {}
    for path in files:
        parts = path.relative_to(root).with_suffix("").parts
        words = [(place, word) for place, part in enumerate(parts) for word in _split_words(part)]
        if not words:
            splits.append(parts[-1].partition("-")[0])
            continue
        named = dict.fromkeys(_SPLITS[word] for _, word in words)
        splits.append(words[0][1] if len(named) == 1 else "_".join(named))
        folder = root.joinpath(*parts[: words[0][0]])
        other = above.setdefault(splits[-1], folder)
        if other != folder:
            raise UserError(f"{root}: {other} and {folder} both have a split {splits[-1]}: give one as root")
    return splits


def _parquet_tables(root: Path, files: Sequence[Path]) -> Iterator[tuple[str, int, Any]]:
    """(split, rows of the file, table of a few rows) of Parquet files."""
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    for path, split in zip(files, _parquet_splits(root, files), strict=True):
        try:
            file = ParquetFile(path)
            for batch in file.iter_batches(batch_size=BATCH):
                yield split, file.metadata.num_rows, batch
        except (ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: not a readable Parquet file ({error}): download it again") from None


def _saved_tables(root: Path) -> Iterator[tuple[str, int, Any]]:
    """(split, rows of the split, table of a few rows) of a dataset that ``save_to_disk`` wrote."""
    from datasets.dataset_dict import DatasetDict
    from datasets.load import load_from_disk

    with reading(root, "a saved dataset", "save it again"):
        saved = load_from_disk(str(root))
        # A dataset without splits knows of which it was one, or else is all that there is to train on.
        parts = saved if isinstance(saved, DatasetDict) else {str(saved.split or "train"): saved}
        for split, part in parts.items():
            arrow = part.with_format("arrow")
            for first in range(0, len(part), BATCH):
                yield str(split), len(part), arrow[first : first + BATCH]


ADAPTER = Adapter(
    layout="a folder written by save_to_disk, or one of Parquet files (train-00000-of-00001.parquet)",
    higher_is_better=None,
    protocols=("files",),
    options=frozenset({"image_column", "score_column", "id_column", "reference_column", "std_column"}),
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=assign_splits,
    unpack=unpack,
)
