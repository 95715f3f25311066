"""Which of two pictures is better (Q-Insight's second stage, rows of DiffIQA).

A JSON list of ``{"ref_image", "ImageA", "ImageB", "result"}``. A prompt shows reference, A, B in this
order, or A and B alone with ``options.show_reference`` false; since ``Similar`` is not on offer then, its
rows are left out and listed. A row's content is its reference in both forms.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import LabelRow, Options
from qhk.data.json_records import read_json_rows
from qhk.data.label_files import records_adapter
from qhk.data.tables import label_word
from qhk.errors import UserError
from qhk.tasks.forms.comparison import CHOICES

FIELDS = ("ref_image", "ImageA", "ImageB", "result")


def read_file(path: Path, split: str, options: Options) -> list[LabelRow]:
    """Return one row per pair, without a score; its id is file name and row, since pictures repeat."""
    with_reference = options.get("show_reference")
    if not isinstance(with_reference, bool):
        raise UserError(f"options.show_reference must be true or false, got {with_reference!r}")
    rows = []
    for place, cells in read_json_rows(path, FIELDS):
        where = f"{path} row {place}"
        choice = label_word(cells["result"], CHOICES, where, "result")
        pair = (cells["ImageA"], cells["ImageB"])
        unused = "result is Similar, which is no answer without a reference"
        rows.append(
            LabelRow(
                name=f"{path.name}#{place}",
                score=None,
                where=where,
                reference=cells["ref_image"],
                split=split,
                labels={"choice": choice},
                pictures=(cells["ref_image"], *pair) if with_reference else pair,
                left_out=unused if choice == "Similar" and not with_reference else None,
            )
        )
    return rows


ADAPTER = records_adapter(
    read_file,
    layout="a folder of images (options.images) and JSON lists (options.train_labels, ...) of "
    "ref_image, ImageA, ImageB, result",
    higher_is_better=None,
    options=frozenset({"show_reference"}),
    scored=False,
)
