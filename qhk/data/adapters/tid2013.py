"""TID2013: 25 references x 24 distortions x 5 levels, MOS in 0-9.

The case of names in ``mos_with_names.txt`` differs from the files on disk; matching ignores case.
``mos_std.txt`` is the error of the mean from pair comparison, far smaller than a rating deviation.
"""

from __future__ import annotations

import re
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options
from qhk.data.distortions import TID_TYPES, describe
from qhk.data.tables import number, read_lines
from qhk.errors import UserError

LABELS, ERRORS = "mos_with_names.txt", "mos_std.txt"
_NAME = re.compile(r"i(\d+)_(\d+)_(\d)\.bmp", re.IGNORECASE)


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [(root / LABELS,), (root / "distorted_images",)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [root / "distorted_images"]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per line ``5.51429 I01_01_1.bmp``.

    ``std`` is the standard error of the mean where its file is there.
    """
    path, lines = root / LABELS, read_lines(root / LABELS)
    errors = read_lines(root / ERRORS) if (root / ERRORS).is_file() else []
    if errors and len(errors) != len(lines):
        raise UserError(
            f"{root / ERRORS}: {len(errors)} lines, {path.name} has {len(lines)}: download it again"
        )
    rows = []
    for index, (line, text) in enumerate(lines):
        where = f"{path} line {line}"
        score, _, name = (part.strip() for part in text.partition(" "))
        match = _NAME.fullmatch(name)
        if match is None or int(match[2]) not in TID_TYPES or not 1 <= int(match[3]) <= 5:
            raise UserError(f"{where}: {text!r}, expected a line like 5.51429 I01_01_1.bmp")
        std = (
            number(errors[index][1], f"{root / ERRORS} line {errors[index][0]}", "mos_std")
            if errors
            else None
        )
        rows.append(
            LabelRow(
                name=name,
                score=number(score, where, "mos"),
                std=std,
                where=where,
                reference=f"I{int(match[1]):02d}",
                labels=describe(TID_TYPES[int(match[2])], int(match[3])),
            )
        )
    return rows


ADAPTER = Adapter(
    layout=f"distorted_images/i01_01_1.bmp, ..., {LABELS}",
    higher_is_better=True,
    expected=expected,
    images=images,
    read_labels=read_labels,
)
