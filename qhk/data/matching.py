"""Finds the file that a label names, whatever its case or extension, and never guesses between two."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from qhk.data.adapter import name_key
from qhk.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """The images below some folders, by relative path, by name and by stem, all in lower case."""

    folders: tuple[Path, ...]
    paths: dict[str, list[Path]]
    names: dict[str, list[Path]]
    stems: dict[str, list[Path]]

    def find(self, name: str, where: str) -> Path:
        """Return the image called ``name``: by relative path, else by file name, else by stem.

        Case is ignored, but where files differ in it alone the exact spelling wins. Raises
        ``UserError`` naming ``where`` when there is none, or when several fit equally well.
        """
        wanted = name.replace("\\", "/")
        last = wanted.rsplit("/", 1)[-1]
        found = (
            self.paths.get(wanted.lower())
            or self.names.get(last.lower())
            or self.stems.get(name_key(last))
            or []
        )
        if len(found) > 1:
            found = [path for path in found if path.as_posix().endswith(f"/{wanted}")] or found
        if len(found) == 1:
            return found[0]
        if found:
            both = " and ".join(str(path) for path in found[:2])
            raise UserError(f"{where}: image {name!r} fits {len(found)} files ({both}): keep one of them")
        folders = ", ".join(str(folder) for folder in self.folders)
        raise UserError(f"{where}: no image {name!r} below {folders}: add the file or remove the label")

    def all_images(self) -> list[Path]:
        """Return every indexed image, sorted."""
        return sorted(path for paths in self.paths.values() for path in paths)


def index_images(folders: Iterable[Path], *, endings: Collection[str]) -> ImageIndex:
    """Return the index of all files with one of ``endings`` below ``folders`` (hidden folders left out)."""
    index = ImageIndex(folders=tuple(folders), paths={}, names={}, stems={})
    for folder in index.folders:
        for directory, children, files in os.walk(folder):
            children[:] = sorted(child for child in children if not child.startswith("."))
            for file in sorted(files):
                if file.rpartition(".")[2].lower() in endings and not file.startswith("."):
                    _add(index, folder, Path(directory, file))
    return index


def _add(index: ImageIndex, folder: Path, path: Path) -> None:
    index.paths.setdefault(path.relative_to(folder).as_posix().lower(), []).append(path)
    index.names.setdefault(path.name.lower(), []).append(path)
    index.stems.setdefault(name_key(path.name), []).append(path)
