"""CSIQ: 30 references, six distortions, DMOS in 0-1, **lower is better**."""

from __future__ import annotations

from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, first_existing
from qhk.data.distortions import CSIQ_TYPES, describe
from qhk.data.tables import number, read_lines, read_workbook
from qhk.errors import UserError

WORKBOOK, FLAT = "csiq.DMOS.xlsx", "csiq_label.txt"
TOKENS = {
    "noise": "AWGN",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
    "fnoise": "fnoise",
    "blur": "BLUR",
    "contrast": "contrast",
}
"""Distortion as the workbook calls it -> as the file names call it."""
_COLUMNS = ["image", "dst_type", "dst_lev", "dmos_std", "dmos"]


def _labels(root: Path) -> tuple[Path, ...]:
    return (root / WORKBOOK, root / FLAT)


def _images(root: Path) -> tuple[Path, ...]:
    return (root / "dst_imgs", root / "dst_imgs_all")


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    return [_labels(root), _images(root)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [first_existing(_images(root))]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per distorted image, from the workbook or from the flat copy ``csiq_label.txt``."""
    path = first_existing(_labels(root))
    return _read_flat(path) if path.name == FLAT else _read_workbook(path)


def _read_workbook(path: Path) -> list[LabelRow]:
    rows = []
    for line, cells in read_workbook(path, _COLUMNS):
        where = f"{path} row {line}"
        token = TOKENS.get(cells["dst_type"].lower())
        if token is None:
            raise UserError(
                f"{where}: dst_type is {cells['dst_type']!r}, expected one of {', '.join(TOKENS)}"
            )
        name = f"{cells['image']}.{token}.{cells['dst_lev']}.png"
        std = number(cells["dmos_std"], where, "dmos_std")
        rows.append(_row(name, number(cells["dmos"], where, "dmos"), std, where))
    return rows


def _read_flat(path: Path) -> list[LabelRow]:
    rows = []
    for line, text in read_lines(path):
        # The score comes last, so a blank in a name does no harm.
        name, _, score = text.rpartition(" ")
        where = f"{path} line {line}"
        rows.append(_row(name.strip(), number(score, where, "dmos"), None, where))
    return rows


def _row(name: str, score: float, std: float | None, where: str) -> LabelRow:
    content, token, level, _ = (name.rsplit(".", 3) + [""] * 4)[:4]
    if token not in CSIQ_TYPES or level not in "12345" or not content:
        raise UserError(f"{where}: image {name!r}, expected a name like 1600.AWGN.1.png")
    return LabelRow(
        name=name,
        score=score,
        std=std,
        where=where,
        reference=content,
        labels=describe(CSIQ_TYPES[token], int(level)),
    )


ADAPTER = Adapter(
    layout=f"dst_imgs/awgn/*.png and its five sister folders (or dst_imgs_all), {WORKBOOK} (or {FLAT})",
    higher_is_better=False,
    expected=expected,
    images=images,
    read_labels=read_labels,
)
