"""SPAQ: smartphone photographs, MOS in 0-100, no official split and no deviations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, first_existing
from qhk.data.names import name_key
from qhk.data.protocols import published_names
from qhk.data.tables import number, read_csv, read_workbook

SHEET = "MOS and Image attribute scores.xlsx"
SHEET_AS_CSV = "MOS_and_Image_attribute_scores.csv"


def _labels(root: Path) -> tuple[Path, ...]:
    return (root / "Annotations" / SHEET, root / "Dataset" / "Annotations" / SHEET, root / SHEET_AS_CSV)


def _images(root: Path) -> tuple[Path, ...]:
    return (root / "TestImage", root / "Dataset" / "TestImage")


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [_labels(root), _images(root)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [first_existing(_images(root))]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per image from the workbook, or from its CSV copy where only that is there."""
    path = first_existing(_labels(root))
    table = read_csv if path.suffix == ".csv" else read_workbook
    rows = []
    for line, cells in table(path, ["Image name", "MOS"]):
        where = f"{path} row {line}"
        rows.append(LabelRow(name=cells["Image name"], score=number(cells["MOS"], where, "MOS"), where=where))
    return rows


def assign_splits(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return the split of each row.

    - ``deqa``: the lists of Q-Align and DeQA-Score (8,897 / 2,224, four images in neither).
    - ``hash_80_20``: by a hash of the name, ours, the same for every seed.
    """
    if protocol == "deqa":
        return _deqa(rows)
    return ["test" if _bucket(row.name) < 0.2 else "train" for row in rows]


def _deqa(rows: Sequence[LabelRow]) -> list[str | None]:
    test, left_out = published_names("spaq_deqa_test"), published_names("spaq_deqa_left_out")
    keys = [name_key(row.name) for row in rows]
    return [None if key in left_out else "test" if key in test else "train" for key in keys]


def _bucket(name: str) -> float:
    digest = hashlib.blake2b(f"spaq/{name_key(name)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


ADAPTER = Adapter(
    layout=f"TestImage/*.jpg (or Dataset/TestImage), Annotations/{SHEET}",
    higher_is_better=True,
    protocols=("deqa", "hash_80_20"),
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=assign_splits,
)
