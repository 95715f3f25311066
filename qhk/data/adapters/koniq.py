"""KonIQ-10k: authentic photographs, 5-point ACR scores.

Two label files share a column called MOS: in ``koniq10k_scores_and_distributions.csv`` it is the ACR mean
in 1-5, in ``koniq10k_distributions_sets.csv`` the z-score mean in 0-100. Scores are read from the first
(``options.score_column``: ``MOS`` or ``MOS_zscore``), the official sets from the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, text_option
from qhk.data.names import name_key
from qhk.data.protocols import published_names
from qhk.data.tables import number, read_csv
from qhk.errors import UserError

SCORES = "koniq10k_scores_and_distributions.csv"
SETS = "koniq10k_distributions_sets.csv"
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}


def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
    """Return what must exist below ``root``, each entry a tuple of alternatives."""
    sets = [(root / SETS,)] if protocol in ("official", "deqa") else []
    return [(root / SCORES,), *sets, (root / text_option(options, "image_folder"),)]


def images(root: Path, options: Options) -> list[Path]:
    """Return the folders that hold the images."""
    return [root / text_option(options, "image_folder")]


def read_labels(root: Path, options: Options) -> list[LabelRow]:
    """Return one row per image; ``std`` is the SD of the ACR grades, left out for the z-score column."""
    column = text_option(options, "score_column")
    if column not in ("MOS", "MOS_zscore"):
        raise UserError(f"options.score_column must be MOS or MOS_zscore, got {column!r}")
    rows = []
    for line, cells in read_csv(root / SCORES, ["image_name", column, "SD"]):
        where = f"{root / SCORES} line {line}"
        # SD is in units of the ACR grades; the z-score column has no deviation on its own scale.
        std = number(cells["SD"], where, "SD") if column == "MOS" else None
        rows.append(
            LabelRow(
                name=cells["image_name"], score=number(cells[column], where, column), where=where, std=std
            )
        )
    return rows


def assign_splits(rows: Sequence[LabelRow], protocol: str, root: Path, options: Options) -> list[str | None]:
    """Return the split of each row.

    - ``official``: the sets file (7,058 / 1,000 / 2,015).
    - ``deqa``: the lists of Q-Align and DeQA-Score, which leave out the official validation part, 12 training
      and 5 test images (7,046 / 2,010).
    """
    official = _official(rows, root / SETS)
    if protocol == "official":
        return list(official)
    left_out = published_names("koniq_deqa_left_out")
    return [
        None if part == "validation" or name_key(row.name) in left_out else part
        for row, part in zip(rows, official, strict=True)
    ]


def _official(rows: Sequence[LabelRow], path: Path) -> list[str]:
    sets: dict[str, str] = {}
    for line, cells in read_csv(path, ["image_name", "set"]):
        if cells["set"] not in _SPLITS:
            raise UserError(
                f"{path} line {line}: set is {cells['set']!r}, expected training, validation or test"
            )
        sets[name_key(cells["image_name"])] = _SPLITS[cells["set"]]
    lacking = [row.name for row in rows if name_key(row.name) not in sets]
    if lacking:
        raise UserError(
            f"{path}: no row for {lacking[0]} ({len(lacking)} in all): the two label files differ"
        )
    return [sets[name_key(row.name)] for row in rows]


ADAPTER = Adapter(
    layout=f"1024x768/*.jpg or 512x384/*.jpg (options.image_folder), {SCORES}, {SETS}",
    higher_is_better=True,
    protocols=("official", "deqa"),
    options=frozenset({"score_column", "image_folder"}),
    expected=expected,
    images=images,
    read_labels=read_labels,
    assign_splits=assign_splits,
)
