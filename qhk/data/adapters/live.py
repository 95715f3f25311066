"""LIVE release 2: 29 references, five distortions, DMOS of about 0-112 (realigned), **lower is better**.

Arrays run over 982 files, folder by folder; the 203 that are undistorted copies (``orgs``) are dropped.
``dmos.mat`` holds the scores before realignment and is not read.
"""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options
from qhk.data.distortions import LIVE_TYPES
from qhk.data.tables import matlab_text, number, read_matlab
from qhk.errors import UserError

SCORES, REFERENCES = "dmos_realigned.mat", "refnames_all.mat"
FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
"""Folder -> its number of files, in the order of the arrays."""


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [(root / SCORES,), (root / REFERENCES,), *((root / folder,) for folder in FOLDERS)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [root / folder for folder in FOLDERS]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per distorted image, ``jp2k/img55.bmp``.

    Raises ``UserError`` on arrays of other lengths.
    """
    path = root / SCORES
    arrays = {name: read_matlab(path, name) for name in ("dmos_new", "orgs", "dmos_std")}
    arrays["refnames_all"] = read_matlab(root / REFERENCES, "refnames_all")
    total = sum(FOLDERS.values())
    for name, values in arrays.items():
        if len(values) != total:
            raise UserError(f"{root}: {name} has {len(values)} values, not {total}: download release 2 again")
    files = [(folder, place) for folder, count in FOLDERS.items() for place in range(1, count + 1)]
    rows = []
    for index, (folder, place) in enumerate(files):
        if arrays["orgs"][index]:
            continue
        where = f"{path} value {index + 1}"
        distortion, appearance = LIVE_TYPES[folder]
        rows.append(
            LabelRow(
                name=f"{folder}/img{place}.bmp",
                score=number(arrays["dmos_new"][index], where, "dmos_new"),
                std=number(arrays["dmos_std"][index], where, "dmos_std"),
                where=where,
                reference=matlab_text(arrays["refnames_all"][index], where, "refnames_all").rpartition(".")[
                    0
                ],
                labels={"distortion": distortion, "appearance": appearance},
            )
        )
    return rows


ADAPTER = Adapter(
    layout=f"jp2k/img1.bmp, ... and jpeg, wn, gblur, fastfading, {SCORES}, {REFERENCES}",
    higher_is_better=False,
    expected=expected,
    images=images,
    read_labels=read_labels,
)
