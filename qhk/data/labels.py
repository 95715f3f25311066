"""The rows of a set's label files, checked, split and with their map to [1, 5]; no image is opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qhk.data.adapter import Adapter, LabelRow
from qhk.data.protocols import assign_splits
from qhk.data.rows import check_rows
from qhk.data.scale import Scale, fit_scale
from qhk.data.spec import Progress, adapter_options, check_spec, make_root, missing_below
from qhk.errors import UserError
from qhk.settings.data import DatasetSettings


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the label files of the set at ``root`` say.

    ``splits`` holds train, validation, test or None (not used) for each of ``rows``. ``root`` is the folder
    that the adapter reads: of a generated or an unpacked set, one below the cache. ``roots`` are the folders
    into which absolute paths may lead: that one, the set's own, and what its entry permits. ``scale`` is None
    where there are labels only; ``left_out`` has a line for each row that the adapter does not use.
    """

    name: str
    root: Path
    roots: tuple[Path, ...]
    adapter: Adapter
    rows: Sequence[LabelRow]
    splits: Sequence[str | None]
    scale: Scale | None
    left_out: tuple[str, ...]


def load_labels(
    name: str, spec: DatasetSettings, *, cache: Path, progress: Progress, need_images: bool = True
) -> Labels:
    """Return the labels of the set ``name``; a miniature set is generated below ``cache`` if needed.

    ``need_images`` false goes without the folders of images. Raises ``UserError`` in one line naming
    file, row, value and fix for everything that a label file can get wrong.
    """
    adapter = check_spec(name, spec)
    given = root = make_root(name, spec, cache=cache, progress=progress)
    missing = [
        line for line, is_images in missing_below(name, spec, adapter, root) if need_images or not is_images
    ]
    if missing:
        raise UserError(_missing(name, adapter, missing[0]))
    options = adapter_options(spec)
    try:
        if adapter.unpack is not None:
            root = adapter.unpack(root, options, cache, progress)
        every_row = adapter.read_labels(root, options)
        rows = [row for row in every_row if row.left_out is None]
        check_rows(rows, bounds=spec.bounds, scored=adapter.scored, root=root)
        splits = assign_splits(adapter, rows, spec.protocol, root, options)
    except ValueError as error:
        raise UserError(named_fault(name, error)) from None
    return Labels(
        name=name,
        root=root,
        roots=(root, given, *map(Path, spec.roots)),
        adapter=adapter,
        rows=rows,
        splits=splits,
        scale=_scale_of(name, rows, splits, spec),
        left_out=tuple(f"{row.where}: {row.left_out}" for row in every_row if row.left_out is not None),
    )


def named_fault(name: str, fault: ValueError) -> str:
    """Return a fault of a set as a line that begins with its key: that of an option where it is about one."""
    return f"dataset.{name}{'.' if str(fault).startswith('options.') else ': '}{fault}"


def has_labels(name: str, spec: DatasetSettings) -> bool:
    """Return whether the label files of the set lie where it says, not to be generated or unpacked first."""
    adapter = check_spec(name, spec)
    if spec.miniature or spec.root is None or adapter.unpack is not None:
        return False
    return all(is_images for _, is_images in missing_below(name, spec, adapter, Path(spec.root).expanduser()))


def _scale_of(
    name: str, rows: Sequence[LabelRow], splits: Sequence[str | None], spec: DatasetSettings
) -> Scale | None:
    if spec.normalisation is None:
        return None
    assert spec.higher_is_better is not None
    pairs = [(row, split) for row, split in zip(rows, splits, strict=True) if row.score is not None]
    return fit_scale(
        [(row.score, row.normalised) for row, _ in pairs if row.score is not None],
        [split for _, split in pairs],
        name=name,
        normalisation=spec.normalisation,
        bounds=spec.bounds,
        higher_is_better=spec.higher_is_better,
    )


def label_problems(name: str, spec: DatasetSettings, *, cache: Path) -> list[str]:
    """Return what a run would refuse about the set's files, one line each, without opening an image.

    Missing files are listed; where the label files are all there they are read, so that a wrong column, score
    or bound is told as well. Nothing is generated, unpacked or downloaded. Raises ``UserError`` only for
    values that are wrong in themselves (unknown adapter, protocol or option).
    """
    adapter = check_spec(name, spec)
    if spec.miniature:
        return []
    assert spec.root is not None
    missing = missing_below(name, spec, adapter, Path(spec.root).expanduser())
    lines = [_missing(name, adapter, line) for line, _ in missing]
    if adapter.unpack is not None or any(not is_images for _, is_images in missing):
        return lines
    try:
        load_labels(name, spec, cache=cache, progress=lambda done, total: None, need_images=False)
    except ValueError as error:
        lines.append(str(error))
    return lines


def _missing(name: str, adapter: Adapter, line: str) -> str:
    """Return the line about a file or folder of a set that is not there, with what to do."""
    return (
        f"dataset.{name}.root: {line}; put the set there, or set dataset.{name}.root or paths.datasets; "
        f"expected layout: {adapter.layout} (conf/README.md, Sets)"
    )
