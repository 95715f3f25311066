"""BID: 586 photographs with real blur, MOS in 0-5, numbered with gaps.

``DatabaseGrades.xlsx`` has the number of an image in its first column and its mean grade in the second; the
wording of its header is not relied on.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, first_existing
from qhk.data.tables import number, read_sheet

LABELS = "DatabaseGrades.xlsx"


def _images(root: Path) -> tuple[Path, ...]:
    return (root / "ImageDatabase", root)


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [(root / LABELS,), _images(root)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [first_existing(_images(root))]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per image, ``DatabaseImage0001.JPG``.

    Raises ``UserError`` on a number without a grade.
    """
    path = root / LABELS
    rows = []
    for line, cells in read_sheet(path):
        first, second = (cells + ["", ""])[:2]
        if not (first.isascii() and first.isdecimal()):
            continue
        where = f"{path} row {line}"
        name = f"DatabaseImage{int(first):04d}.JPG"
        rows.append(
            LabelRow(name=name, score=number(second, where, "the grade (second column)"), where=where)
        )
    return rows


ADAPTER = Adapter(
    layout=f"ImageDatabase/DatabaseImage0001.JPG, ... (or beside the workbook), {LABELS}",
    higher_is_better=True,
    expected=expected,
    images=images,
    read_labels=read_labels,
)
