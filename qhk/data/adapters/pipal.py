"""PIPAL (public training part): restoration and GAN results, Elo-style scores, no deviations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, first_existing
from qhk.data.names import name_key
from qhk.data.protocols import published_names
from qhk.data.tables import number, read_lines
from qhk.errors import UserError

_NAME = re.compile(r"(A\d+)_(\d+)_(\d+)\.\w+", re.IGNORECASE)


def _labels(root: Path) -> tuple[Path, ...]:
    return (root / "Train_Label", root / "training" / "MOS_Scores_train")


def _images(root: Path, part: int) -> tuple[Path, ...]:
    name = f"Distortion_{part}"
    return (root / name, root / "training" / "Distortion" / name, root / "Dist_Imgs")


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [_labels(root), *(_images(root, part) for part in range(1, 5))]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return list(dict.fromkeys(first_existing(_images(root, part)) for part in range(1, 5)))


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per line of every ``Train_Label/A*.txt`` (``A0001_00_00.bmp,1520.0648``)."""
    folder = first_existing(_labels(root))
    rows = []
    for path in sorted(folder.glob("*.txt")):
        for line, text in read_lines(path):
            where = f"{path} line {line}"
            name, comma, score = (part.strip() for part in text.partition(","))
            match = _NAME.fullmatch(name)
            if match is None or not comma:
                raise UserError(f"{where}: {text!r}, expected a line like A0001_00_00.bmp,1520.0648")
            rows.append(
                LabelRow(
                    name=name,
                    score=number(score, where, "score"),
                    where=where,
                    reference=match[1].upper(),
                    labels={"group": match[2]},
                )
            )
    return rows


def assign_splits(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return each row's split under ``deqa``.

    The 40 references of DeQA-Score's test part (4,640 images) are test, the other 160 train.
    """
    test = published_names("pipal_deqa_test_references")
    return ["test" if name_key(row.reference or "") in test else "train" for row in rows]


ADAPTER = Adapter(
    layout="Distortion_1 to Distortion_4 (or as in training/, or Dist_Imgs), Train_Label/A0001.txt, ...",
    higher_is_better=True,
    protocols=("deqa",),
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=assign_splits,
)
