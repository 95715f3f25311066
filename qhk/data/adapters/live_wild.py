"""LIVE In the Wild Challenge: 1,162 photographs, MOS in 0-100, in MATLAB arrays.

The first seven rows (t1 ... t7) are training pictures of the study and are dropped. File
extensions are mixed.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, first_existing
from qhk.data.tables import matlab_text, number, read_matlab
from qhk.errors import UserError

NUM_TRAINING_ROWS = 7
_VARIABLES = ("AllImages_release", "AllMOS_release", "AllStdDev_release")


def _inside(root: Path, name: str) -> tuple[Path, ...]:
    return (root / name, root / "ChallengeDB_release" / name)


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [*(_inside(root, f"Data/{variable}.mat") for variable in _VARIABLES), _inside(root, "Images")]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [first_existing(_inside(root, "Images"))]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per image after the seven training rows.

    Raises ``UserError`` on arrays of other shapes.
    """
    cells, scores, deviations = (
        read_matlab(first_existing(_inside(root, f"Data/{name}.mat")), name) for name in _VARIABLES
    )
    path = first_existing(_inside(root, "Data/AllMOS_release.mat"))
    if not len(cells) == len(scores) == len(deviations) > NUM_TRAINING_ROWS:
        raise UserError(
            f"{path.parent}: {len(cells)} names, {len(scores)} scores, {len(deviations)} deviations: "
            "download the three .mat files again"
        )
    rows = []
    for index in range(NUM_TRAINING_ROWS, len(cells)):
        where = f"{path} row {index + 1}"
        rows.append(
            LabelRow(
                name=matlab_text(cells[index], where, _VARIABLES[0]),
                score=number(scores[index], where, _VARIABLES[1]),
                where=where,
                std=number(deviations[index], where, _VARIABLES[2]),
            )
        )
    return rows


ADAPTER = Adapter(
    layout="Images/*.bmp and *.JPG, Data/AllImages_release.mat, AllMOS_release.mat, AllStdDev_release.mat",
    higher_is_better=True,
    expected=expected,
    images=images,
    read_labels=read_labels,
)
