"""PIPAL (public training part): restoration and GAN results, Elo-style scores, no deviations."""

from __future__ import annotations

import re
from pathlib import Path

from qhk.data.adapters.base import NAMES_OPTIONS, Adapter, LabelRow, Options, all_or_names, first_existing
from qhk.data.adapters.tables import number, read_lines

_NAME = re.compile(r"(A\d+)_(\d+)_(\d+)\.\w+", re.IGNORECASE)


def _labels(root: Path) -> tuple[Path, ...]:
    return (root / "Train_Label", root / "training" / "MOS_Scores_train")


def _images(root: Path, part: int) -> tuple[Path, ...]:
    name = f"Distortion_{part}"
    return (root / name, root / "training" / "Distortion" / name, root / "Dist_Imgs")


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """What must exist below ``root``, each entry a tuple of alternatives."""
    return [_labels(root), *(_images(root, part) for part in range(1, 5))]


def images(root: Path, options: Options) -> list[Path]:
    """The folders that hold the images."""
    return list(dict.fromkeys(first_existing(_images(root, part)) for part in range(1, 5)))


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """One row per line of every ``Train_Label/A*.txt`` (``A0001_00_00.bmp,1520.0648``)."""
    folder = first_existing(_labels(root))
    rows = []
    for path in sorted(folder.glob("*.txt")):
        for line, text in read_lines(path):
            where = f"{path} line {line}"
            name, comma, score = (part.strip() for part in text.partition(","))
            match = _NAME.fullmatch(name)
            if match is None or not comma:
                raise ValueError(f"{where}: {text!r}, expected a line like A0001_00_00.bmp,1520.0648")
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


ADAPTER = Adapter(
    layout="Distortion_1 to Distortion_4 (or as in training/, or Dist_Imgs), Train_Label/A0001.txt, ...",
    higher_is_better=True,
    protocols=("all", "names"),
    options=NAMES_OPTIONS,
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=all_or_names,
)
