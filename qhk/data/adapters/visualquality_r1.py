"""Label files of VisualQuality-R1 and PreResQ-R1: text lists, and the JSON lines that training reads.

Text lists have no header and their columns differ from file to file, so ``options.columns`` says them, for
instance ``image score std`` or ``reference image score``. Cells are separated by tabs, else by commas, else
by blanks; with blanks, the first cell alone may hold some.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapters.base import LabelRow, Options, text_option
from qhk.data.adapters.json_records import number_field, one_image, read_json_records, text_field
from qhk.data.adapters.records import records_adapter
from qhk.data.adapters.tables import number, read_lines
from qhk.errors import UserError

COLUMNS = ("reference", "image", "score", "std", "skip")


def _read_text(path: Path, split: str, options: Options) -> list[LabelRow]:
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


def _read_lines(path: Path, split: str, options: Options) -> list[LabelRow]:
    rows = []
    for where, record in read_json_records(path):
        turns = record.get("conversations")
        answers = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
        answers = [turn for turn in answers if turn.get("from") == "gpt"]
        if len(answers) != 1:
            raise UserError(
                f"{where}: conversations has {len(answers)} turns from gpt, expected one with the score"
            )
        labels = (
            {"dataset_name": text_field(record, "dataset_name", where)} if "dataset_name" in record else {}
        )
        rows.append(
            LabelRow(
                name=one_image(record, "image", where),
                score=number_field(answers[0], "value", where),
                where=where,
                split=split,
                labels=dict(labels),
            )
        )
    return rows


TEXT = records_adapter(
    _read_text,
    layout="text lists (options.train_labels, ..., options.columns) and a folder of images (options.images)",
    higher_is_better=None,
    options=frozenset({"columns"}),
)
LINES = records_adapter(
    _read_lines,
    layout="JSON lines of image and conversations (options.train_labels, ...), images (options.images)",
    higher_is_better=None,
    options=frozenset(),
)
