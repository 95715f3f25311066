"""Where the pictures may lie that a file of somebody else names: a path in it could lead anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.settings.data import DatasetSettings
from qhk.settings.pairs import PairsSettings
from qhk.settings.paths import PathsSettings


def picture_roots(
    paths: PathsSettings, pairs: PairsSettings, sets: Sequence[DatasetSettings] = ()
) -> tuple[Path, ...]:
    """Return the folders in which a manifest may name pictures, beside its own: those of the settings."""
    roots = [entry.root for entry in sets if entry.root is not None and not entry.miniature]
    folders = (paths.outputs, paths.cache, paths.datasets, *roots, *pairs.roots)
    return tuple(Path(folder).resolve() for folder in folders)


def lies_within(path: Path, roots: Sequence[Path]) -> bool:
    """Return whether ``path`` leads, through links, below one of ``roots``, which are resolved."""
    real = path.resolve()
    return any(real.is_relative_to(root) for root in roots)
