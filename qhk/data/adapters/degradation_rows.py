"""Pictures with the name and the severity of one degradation (Q-Insight's rows of DQ-495K).

A JSON list of ``{"image", "distortion_class", "severity"}``, further fields ignored; an undamaged picture
has ``null`` for both. How the published rows spell that is not known, so the text ``null`` and a JSON null
are both read. One file per split, or one file that is cut by content.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import LabelRow, Options, text_option
from qhk.data.json_records import read_json_rows
from qhk.data.label_files import records_adapter
from qhk.data.tables import label_word
from qhk.errors import UserError
from qhk.tasks.forms.degradation import DISTORTION_CLASSES, SEVERITIES


def read_file(path: Path, split: str, options: Options) -> list[LabelRow]:
    """Return one row per picture, without a score.

    ``options.reference_field`` names the field of the picture's content, or is null.
    """
    content = None if options.get("reference_field") is None else text_option(options, "reference_field")
    fields = ["image", "distortion_class", "severity", *([content] if content else [])]
    rows = []
    for place, cells in read_json_rows(path, fields):
        where = f"{path} row {place}"
        kind = label_word(cells["distortion_class"], DISTORTION_CLASSES, where, "distortion_class")
        severity = label_word(cells["severity"], SEVERITIES, where, "severity")
        if (kind == "null") != (severity == "null"):
            raise UserError(
                f"{where}: distortion_class is {kind!r} and severity is {severity!r}: an undamaged image "
                "has null for both, a damaged one for neither"
            )
        rows.append(
            LabelRow(
                name=cells["image"],
                score=None,
                where=where,
                reference=cells[content] if content else None,
                split=split,
                labels={"distortion_class": kind, "severity": severity},
            )
        )
    return rows


ADAPTER = records_adapter(
    read_file,
    layout="a folder of images (options.images) and JSON lists (options.train_labels, ...) of "
    "image, distortion_class, severity",
    higher_is_better=None,
    options=frozenset({"reference_field"}),
    scored=False,
)
