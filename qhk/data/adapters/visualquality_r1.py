"""Text lists of VisualQuality-R1 and PreResQ-R1.

They have no header and their columns differ from file to file, so ``options.columns`` says them, for
instance ``image score std`` or ``reference image score``. Cells are separated by tabs, else by commas, else
by blanks; with blanks, the first cell alone may hold some.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import LabelRow, Options, text_option
from qhk.data.label_files import records_adapter
from qhk.data.tables import number, read_lines
from qhk.errors import UserError

COLUMNS = ("reference", "image", "score", "std", "skip")


def read_file(path: Path, split: str, options: Options) -> list[LabelRow]:
    """Return one row per line, its cells named by ``options.columns``."""
    columns = text_option(options, "columns").split()
    if not {"image", "score"} <= set(columns) <= set(COLUMNS):
        raise UserError(
            f"options.columns is {' '.join(columns)!r}: name image and score, "
            f"and of {', '.join(COLUMNS)} what is there"
        )
    rows = []
    for line, text in read_lines(path):
        where = f"{path} line {line}"
        cells = _cells(text, len(columns))
        if len(cells) != len(columns):
            raise UserError(
                f"{where}: {text[:60]!r} has {len(cells)} cells, options.columns has {len(columns)} "
                f"({' '.join(columns)}): correct one of them"
            )
        named = dict(zip(columns, cells, strict=True))
        rows.append(
            LabelRow(
                name=named["image"],
                score=number(named["score"], where, "score"),
                std=number(named["std"], where, "std") if "std" in named else None,
                reference=named.get("reference"),
                where=where,
                split=split,
            )
        )
    return rows


def _cells(text: str, wanted: int) -> list[str]:
    for mark in ("\t", ","):
        if mark in text:
            return [cell.strip() for cell in text.split(mark)]
    cells = text.split()
    return cells if len(cells) <= wanted else text.rsplit(maxsplit=wanted - 1)


ADAPTER = records_adapter(
    read_file,
    layout="text lists (options.train_labels, ..., options.columns) and a folder of images (options.images)",
    higher_is_better=None,
    options=frozenset({"columns"}),
)
