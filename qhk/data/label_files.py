"""What formats of other projects share: label files, one per split, and one folder of images.

``options.train_labels``, ``validation_labels`` and ``test_labels`` name the files, ``options.images`` the
folder; relative paths start at the root, and any of the files may be null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow, Options, text_option
from qhk.errors import UserError

_SPLITS = ("train", "validation", "test")

ReadFile = Callable[[Path, str, Options], list[LabelRow]]
"""(label file, the split it is for, options) -> its rows."""


def records_adapter(
    read_file: ReadFile,
    *,
    layout: str,
    higher_is_better: bool | None,
    options: frozenset[str] = frozenset(),
    scored: bool = True,
) -> Adapter:
    """Return the adapter of a format that differs in how one file is read; ``scored`` as in ``Adapter``."""

    def expected(root: Path, protocol: str, options: Options) -> list[tuple[Path, ...]]:
        files = [(path,) for path in label_files(root, options).values()]
        return [*files, (root / text_option(options, "images"),)]

    def images(root: Path, options: Options) -> list[Path]:
        return [root / text_option(options, "images")]

    def read_labels(root: Path, options: Options) -> list[LabelRow]:
        files = label_files(root, options).items()
        return [row for split, path in files for row in read_file(path, split, options)]

    return Adapter(
        layout=layout,
        higher_is_better=higher_is_better,
        protocols=("files",),
        options=options | {"images"} | {f"{split}_labels" for split in _SPLITS},
        expected=expected,
        images=images,
        read_labels=read_labels,
        assign_splits=assign_file_splits,
        scored=scored,
    )


def label_files(root: Path, options: Options) -> dict[str, Path]:
    """Return the label file of each split, below ``root``. Raises ``UserError`` when all options are null."""
    given = [split for split in _SPLITS if options.get(f"{split}_labels") is not None]
    if not given:
        raise UserError("options.train_labels and options.test_labels are both null: give at least one file")
    return {split: root / text_option(options, f"{split}_labels") for split in given}


def assign_file_splits(
    rows: Sequence[LabelRow], protocol: str, root: Path, options: Options
) -> list[str | None]:
    """Return each row's split under ``files``: that of its file."""
    return [row.split for row in rows]
