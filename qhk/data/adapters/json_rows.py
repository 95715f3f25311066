"""Rows of Q-Hawkeye and its relatives: ``id``, ``images`` (a list of one path) and ``gt_score``.

Degraded copies (``is_degraded``) carry the score of their original, which is not theirs, so they are refused:
pairs are read by ``twin=manifest``.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import LabelRow, Options
from qhk.data.json_records import number_field, one_image, read_json_records, text_field
from qhk.data.label_files import records_adapter
from qhk.errors import UserError

_KNOWN = ("id", "images", "gt_score", "is_degraded")


def _read_file(path: Path, split: str, options: Options) -> list[LabelRow]:
    rows = []
    for where, record in read_json_records(path):
        if record.get("is_degraded"):
            raise UserError(
                f"{where}: {record.get('id')} is a degraded copy with the score of its original: remove such "
                "rows, and give the pairs by twin=manifest"
            )
        labels = {
            field: value if isinstance(value, str) else number_field(record, field, where)
            for field, value in record.items()
            if field not in _KNOWN and isinstance(value, str | int | float) and not isinstance(value, bool)
        }
        rows.append(
            LabelRow(
                name=text_field(record, "id", where),
                pictures=(one_image(record, "images", where),),
                score=number_field(record, "gt_score", where),
                where=where,
                split=split,
                labels=labels,
            )
        )
    return rows


ADAPTER = records_adapter(
    _read_file,
    layout="JSON lists or JSON lines of id, images, gt_score (options.train_labels, ...), images",
    higher_is_better=None,
)
