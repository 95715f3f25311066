"""Splits of sets with one label file per split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapters.base import LabelRow, Options, text_option
from qhk.data.adapters.protocols import COMMON_OPTIONS, COMMON_PROTOCOLS, common_split
from qhk.errors import UserError

_SPLITS = ("train", "validation", "test")

FILES_OPTIONS = frozenset(f"{split}_labels" for split in _SPLITS) | COMMON_OPTIONS
"""Options of a set with one label file per split."""

FILES_PROTOCOLS = ("files", *COMMON_PROTOCOLS)
"""Splits of a set with one label file per split: see ``assign_file_splits``."""


def label_files(root: Path, options: Options) -> dict[str, Path]:
    """Split -> its label file below ``root``; ``ValueError`` when all options are null."""
    given = [split for split in _SPLITS if options.get(f"{split}_labels") is not None]
    if not given:
        raise UserError("options.train_labels and options.test_labels are both null: give at least one file")
    return {split: root / text_option(options, f"{split}_labels") for split in given}


def assign_file_splits(
    rows: Sequence[LabelRow], protocol: str, root: Path, options: Options
) -> list[str | None]:
    """``files``: rows belong to the split of their file; or a common one, over the rows of all files."""
    if protocol == "files":
        return [row.split for row in rows]
    return common_split(rows, protocol, root, options)
