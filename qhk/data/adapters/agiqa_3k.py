"""AGIQA-3K: pictures of six generators, quality scores of about 0-5. Alignment is another question."""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options
from qhk.data.tables import number, read_csv

LABELS = "data.csv"


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [(root / LABELS,)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [root]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per image with ``mos_quality``; the generator is the name up to its first underscore."""
    rows = []
    for line, cells in read_csv(root / LABELS, ["name", "mos_quality", "std_quality"]):
        where = f"{root / LABELS} line {line}"
        rows.append(
            LabelRow(
                name=cells["name"],
                score=number(cells["mos_quality"], where, "mos_quality"),
                where=where,
                std=number(cells["std_quality"], where, "std_quality"),
                labels={"generator": cells["name"].split("_", 1)[0]},
            )
        )
    return rows


ADAPTER = Adapter(
    layout="data.csv, and the .jpg files beside it or in one folder below",
    higher_is_better=True,
    expected=expected,
    images=images,
    read_labels=read_labels,
)
