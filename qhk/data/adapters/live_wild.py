"""LIVE In the Wild Challenge: 1,162 photographs, MOS in 0-100, in MATLAB arrays.

The first seven rows (t1 ... t7) are training pictures of the study and are dropped. File
extensions are mixed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from qhk.data.adapters.base import NAMES_OPTIONS, Adapter, LabelRow, Options, all_or_names, first_existing

NUM_TRAINING_ROWS = 7
_VARIABLES = ("AllImages_release", "AllMOS_release", "AllStdDev_release")


def _inside(root: Path, name: str) -> tuple[Path, ...]:
    return (root / name, root / "ChallengeDB_release" / name)


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """What must exist below ``root``, each entry a tuple of alternatives."""
    return [*(_inside(root, f"Data/{variable}.mat") for variable in _VARIABLES), _inside(root, "Images")]


def images(root: Path, options: Options) -> list[Path]:
    """The folders that hold the images."""
    return [first_existing(_inside(root, "Images"))]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """One row per image after the seven training rows. Raises ``ValueError`` on arrays of other shapes."""
    cells, scores, deviations = (
        _read(first_existing(_inside(root, f"Data/{name}.mat")), name) for name in _VARIABLES
    )
    path = first_existing(_inside(root, "Data/AllMOS_release.mat"))
    if not len(cells) == len(scores) == len(deviations) > NUM_TRAINING_ROWS:
        raise ValueError(
            f"{path.parent}: {len(cells)} names, {len(scores)} scores, {len(deviations)} deviations: "
            "download the three .mat files again"
        )
    rows = []
    for index in range(NUM_TRAINING_ROWS, len(cells)):
        where = f"{path} row {index + 1}"
        score, std = float(scores[index]), float(deviations[index])
        if not np.isfinite([score, std]).all():
            raise ValueError(f"{where}: score {score}, deviation {std}: download the file again")
        rows.append(LabelRow(name=str(np.ravel(cells[index])[0]).strip(), score=score, where=where, std=std))
    return rows


def _read(path: Path, variable: str) -> NDArray[np.generic]:
    try:
        content = loadmat(path)
    except (MatReadError, ValueError, TypeError, OSError) as error:
        raise ValueError(f"{path}: not a readable MATLAB file ({error}): download it again") from None
    if variable not in content:
        present = ", ".join(name for name in content if not name.startswith("__"))
        raise ValueError(f"{path}: no variable {variable!r}; variables present: {present}")
    return np.asarray(content[variable]).ravel()


ADAPTER = Adapter(
    layout="Images/*.bmp and *.JPG, Data/AllImages_release.mat, AllMOS_release.mat, AllStdDev_release.mat",
    higher_is_better=True,
    protocols=("all", "names"),
    options=NAMES_OPTIONS,
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=all_or_names,
)
