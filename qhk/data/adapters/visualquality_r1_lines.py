"""The JSON lines that the training of VisualQuality-R1 and PreResQ-R1 reads."""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import LabelRow, Options
from qhk.data.json_records import number_field, one_image, read_json_records, text_field
from qhk.data.label_files import records_adapter
from qhk.errors import UserError


def read_file(path: Path, split: str, options: Options) -> list[LabelRow]:
    """Return one row per line, scored by the one answer in its conversation."""
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


ADAPTER = records_adapter(
    read_file,
    layout="JSON lines of image and conversations (options.train_labels, ...), images (options.images)",
    higher_is_better=None,
)
