"""What formats of other projects share: label files, one per split, and one folder of images.

``options.train_labels``, ``validation_labels`` and ``test_labels`` name the files, ``options.images`` the
folder; relative paths start at the root, and any of the files may be null.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qhk.data.adapters.base import Adapter, LabelRow, Options, text_option
from qhk.data.adapters.splits import FILES_OPTIONS, FILES_PROTOCOLS, assign_file_splits, label_files

ReadFile = Callable[[Path, str, Options], list[LabelRow]]
"""(label file, the split it is for, options) -> its rows."""


def records_adapter(
    read_file: ReadFile,
    *,
    layout: str,
    higher_is_better: bool | None,
    options: frozenset[str],
    scored: bool = True,
) -> Adapter:
    """The adapter of a format that is told by how one file is read; ``scored`` as in ``Adapter``."""

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
        protocols=FILES_PROTOCOLS,
        options=options | {"images"} | FILES_OPTIONS,
        expected=expected,
        images=images,
        read_labels=read_labels,
        assign_splits=assign_file_splits,
        scored=scored,
    )
