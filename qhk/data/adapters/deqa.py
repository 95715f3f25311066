"""DeQA-Score metas: JSON lists with the native score (higher is better) and the score on [1, 5] beside it.

``normalisation=published`` reads the map to [1, 5] off the two, since a split does not show the extremes of
its set. Image paths start at the folder ``Data-DeQA-Score``.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import LabelRow, Options
from qhk.data.json_records import number_field, one_image, read_json_records, text_field
from qhk.data.label_files import records_adapter
from qhk.errors import UserError


def _read_file(path: Path, split: str, options: Options) -> list[LabelRow]:
    rows = []
    for where, record in read_json_records(path):
        score = number_field(record, "gt_score", where)
        written = text_field(record, "id", where).rpartition("->")[2]
        if number_field({"id": written}, "id", where) != score:
            raise UserError(
                f"{where}: id says {written}, gt_score {score}: one of them was changed, restore it"
            )
        rows.append(
            LabelRow(
                name=one_image(record, "image", where),
                score=score,
                normalised=number_field(record, "gt_score_norm", where),
                std=number_field(record, "std", where) if "std" in record else None,
                where=where,
                split=split,
            )
        )
    return rows


ADAPTER = records_adapter(
    _read_file,
    layout="KONIQ/images/, ..., KONIQ/metas/*.json (options.train_labels, ...)",
    higher_is_better=True,
)
