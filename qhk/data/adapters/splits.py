"""Splits that formats share: by a file per split, and by a seeded fraction of the contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapters.base import LabelRow, Options, text_option
from qhk.data.seeds import stream_seed

FRACTION_OPTIONS = frozenset({"test_fraction", "split_seed"})
"""Options of the protocol ``fraction``."""

FILES_OPTIONS = frozenset({"train_labels", "test_labels"})
"""Options of a set with one label file per split."""

FILES_PROTOCOLS = ("files", "fraction", "all")
"""Splits of a set with one label file per split: see ``assign_file_splits``."""


def split_by_fraction(rows: Sequence[LabelRow], options: Options) -> list[str | None]:
    """Train and test: ``options.test_fraction`` of the contents is test, drawn by ``options.split_seed``."""
    share, seed = options.get("test_fraction"), options.get("split_seed")
    if not isinstance(share, float) or not 0.0 < share < 1.0:
        raise ValueError(
            f"options.test_fraction must lie between 0 and 1 for protocol=fraction, got {share!r}"
        )
    if type(seed) is not int:
        raise ValueError(f"options.split_seed must be a whole number for protocol=fraction, got {seed!r}")
    contents = {row.reference or row.name for row in rows}
    order = sorted(contents, key=lambda content: (stream_seed(seed, "folder split", content), content))
    test = set(order[: max(1, round(share * len(order)))])
    return ["test" if (row.reference or row.name) in test else "train" for row in rows]


def label_files(root: Path, options: Options) -> dict[str, Path]:
    """Split -> its label file below ``root``; ``ValueError`` when both options are null."""
    given = [split for split in ("train", "test") if options.get(f"{split}_labels") is not None]
    if not given:
        raise ValueError("options.train_labels and options.test_labels are both null: give at least one file")
    return {split: root / text_option(options, f"{split}_labels") for split in given}


def assign_file_splits(
    rows: Sequence[LabelRow], protocol: str, root: Path, options: Options
) -> list[str | None]:
    """``files``: rows belong to the split of their file; ``fraction``: all files together, cut by content;
    ``all``: every row is test."""
    if protocol == "fraction":
        return split_by_fraction(rows, options)
    return [row.split if protocol == "files" else "test" for row in rows]
