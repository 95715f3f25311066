"""KADID-10k: 81 references x 25 distortions x 5 levels, 5-point DCR scores.

``dmos`` is higher for better pictures despite its name, and ``var`` holds a standard deviation (for 9,584
of the 10,125 rows it is exactly that of 30 integer grades), so it is read as one, without a square root.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options
from qhk.data.distortions import KADID_TYPES, describe
from qhk.data.names import name_key
from qhk.data.protocols import published_names
from qhk.data.tables import number, read_csv
from qhk.errors import UserError

LABELS = "dmos.csv"
LAST_DEQA_TRAIN_REFERENCE = 65
VQ_TEST = frozenset({19, 29, 30, 34, 37, 38, 43, 50, 64, 71, 72, 73, 74, 78, 80, 81})
VQ_VALIDATION = frozenset({7, 12, 14, 15, 16, 27, 32, 35, 36, 41, 44, 49, 55, 66, 67, 70})
_NAME = re.compile(r"i(\d+)_(\d+)_(\d+)\.\w+", re.IGNORECASE)


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [(root / LABELS,), (root / "images",)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [root / "images"]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per distorted image, with reference (``I01``), distortion and level from its name."""
    rows = []
    for line, cells in read_csv(root / LABELS, ["dist_img", "ref_img", "dmos", "var"]):
        where = f"{root / LABELS} line {line}"
        match = _NAME.fullmatch(cells["dist_img"])
        if match is None or int(match[2]) not in KADID_TYPES or not 1 <= int(match[3]) <= 5:
            raise UserError(f"{where}: dist_img is {cells['dist_img']!r}, expected a name like I01_01_01.png")
        rows.append(
            LabelRow(
                name=cells["dist_img"],
                score=number(cells["dmos"], where, "dmos"),
                where=where,
                std=number(cells["var"], where, "var"),
                reference=f"I{int(match[1]):02d}",
                labels=describe(KADID_TYPES[int(match[2])], int(match[3])),
            )
        )
    return rows


def assign_splits(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return the split of each row.

    - ``references``: 1-65 train, 66-81 test (8,125 / 2,000).
    - ``deqa``: the same without the 19 training images that the lists of Q-Align and DeQA-Score leave out
      (8,106 / 2,000).
    - ``visualquality_r1``: 49 / 16 / 16 references, also of PreResQ-R1 (6,125 / 2,000 / 2,000).
    """
    if protocol == "visualquality_r1":
        return [_visualquality(row) for row in rows]
    left_out = published_names("kadid_deqa_left_out") if protocol == "deqa" else frozenset[str]()
    return [None if name_key(row.name) in left_out else _two_parts(row) for row in rows]


def _number(row: LabelRow) -> int:
    assert row.reference is not None
    return int(row.reference[1:])


def _two_parts(row: LabelRow) -> str:
    return "train" if _number(row) <= LAST_DEQA_TRAIN_REFERENCE else "test"


def _visualquality(row: LabelRow) -> str:
    reference = _number(row)
    return "test" if reference in VQ_TEST else "validation" if reference in VQ_VALIDATION else "train"


ADAPTER = Adapter(
    layout="images/I01_01_01.png, ..., dmos.csv",
    higher_is_better=True,
    protocols=("deqa", "references", "visualquality_r1"),
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=assign_splits,
)
