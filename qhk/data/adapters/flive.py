"""FLIVE (PaQ-2-PiQ), the pictures: 39,810 photographs, MOS in 0-100. Patches are another question.

``official``: the pictures of ``labels640.csv`` (a side above 640 pixels) are the test part; of the others,
``labels=640_padded.csv`` says by ``is_valid`` which are for validation. Names carry their folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, first_existing
from qhk.data.names import path_key
from qhk.data.tables import Cells, label_word, number, read_csv

LABELS, TEST, TRAINING = "labels_image.csv", "labels640.csv", "labels=640_padded.csv"
_PARTS = {"true": "validation", "1": "validation", "false": "train", "0": "train"}


def _inside(root: Path, name: str) -> tuple[Path, ...]:
    return (root / name, root / "database" / name)


def _images(root: Path) -> tuple[Path, ...]:
    return (root / "database", root)


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    lists = [_inside(root, TEST), _inside(root, TRAINING)] if protocol == "official" else []
    return [_inside(root, LABELS), *lists, _images(root)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [first_existing(_images(root))]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per picture, ``blur_dataset/motion0044.jpg``; this file publishes no deviations."""
    path = first_existing(_inside(root, LABELS))
    rows = []
    for line, cells in read_csv(path, ["name", "mos"]):
        where = f"{path} line {line}"
        rows.append(LabelRow(name=cells["name"], score=number(cells["mos"], where, "mos"), where=where))
    return rows


def assign_splits(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return the ``official`` split of each row; None for a picture in no list."""
    parts: dict[str, str] = {}
    path = first_existing(_inside(root, TRAINING))
    for line, cells in _listed(path, ["is_valid"]):
        parts[_name(cells)] = _PARTS[
            label_word(cells["is_valid"].lower(), tuple(_PARTS), f"{path} line {line}", "is_valid")
        ]
    for _, cells in _listed(first_existing(_inside(root, TEST)), []):
        parts[_name(cells)] = "test"
    return [parts.get(path_key(row.name)) for row in rows]


def _listed(path: Path, columns: list[str]) -> list[tuple[int, Cells]]:
    """The rows of a list, whose first column of names is ``name_image`` or ``name``."""
    try:
        return read_csv(path, ["name_image", *columns])
    except ValueError:
        return read_csv(path, ["name", *columns])


def _name(cells: Cells) -> str:
    return path_key(cells.get("name_image") or cells["name"])


ADAPTER = Adapter(
    layout=f"database/voc_emotic_ava, blur_dataset, EE371R with the pictures, {LABELS}",
    higher_is_better=True,
    protocols=("official",),
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=assign_splits,
)
