"""Finds the file that a label names, whatever its case or extension, and never guesses between two.

Folders that a label writes count. They may begin above the set, with folders of its authors, or inside it:
what decides is the tail on which the written path and the file's own agree.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qhk.data.names import file_key, name_key, same_name, shared_tail, written_parts
from qhk.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedImage:
    """One file, its parts below the indexed folder, and the parts of that folder's absolute path."""

    path: Path
    below: tuple[str, ...]
    folder: tuple[str, ...]

    def fit(self, written: Sequence[str]) -> tuple[bool, int, int] | None:
        """Return how well a written path fits, larger for better; None where a written folder contradicts.

        That is whether it is the whole path below the folder, then in how many folders the two agree, then
        in how many parts they are spelled alike. It fits where all its folders agree, or else all of the
        file's below the indexed folder and at least one.
        """
        parts = (*self.folder, *self.below)
        folders = shared_tail(parts[:-1], written[:-1])
        if folders < min(len(written) - 1, max(1, len(self.below) - 1)):
            return None
        alike = sum(one == other for one, other in zip(parts[::-1], written[::-1], strict=False))
        return len(written) == len(self.below), folders, alike


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """The images below some folders, by file name and by its stem, whatever case and accents.

    ``roots`` are further folders to which an absolute path may lead; they are not indexed.
    """

    folders: tuple[Path, ...]
    roots: tuple[Path, ...]
    names: dict[str, list[IndexedImage]]
    stems: dict[str, list[IndexedImage]]

    def find(self, name: str, where: str) -> Path:
        """Return the image that a label calls ``name``: a file name, or a path of which the tail counts.

        A bare name fits a file in any folder; written folders must agree (``IndexedImage.fit``), and the file
        that agrees best is taken. Other extensions are tried where no file has the written one; case and
        the spelling of accents are ignored, but where files differ in these alone the exact spelling wins.
        Raises ``UserError`` naming ``where`` when there is none, or when several fit equally well.
        """
        found, namesakes = self.fitting(name)
        if len(found) == 1:
            return found[0]
        if found:
            both = " and ".join(str(path) for path in found[:2])
            raise UserError(f"{where}: image {name!r} fits {len(found)} files ({both}): keep one of them")
        folders = ", ".join(str(folder) for folder in self.folders)
        astray = next((f", {file.path} is in another folder" for file in namesakes), "")
        raise UserError(
            f"{where}: no image {name!r} below {folders}{astray}: add the file, or correct the label"
        )

    def fitting(self, name: str) -> tuple[list[Path], list[IndexedImage]]:
        """Return the files that ``name`` fits best, and all that are called so in any folder."""
        written = written_parts(name)
        last = written[-1] if written else ""
        namesakes = [self.names.get(same_name(last), []), self.stems.get(name_key(last), [])]
        best = next((best for files in namesakes if (best := _best(files, written))), [])
        return best, [file for files in namesakes for file in files]

    def holds(self, picture: Path) -> bool:
        """Return whether a path leads, through its folders' links, below a folder of the set or ``roots``.

        A picture that lies there may be a link itself: caches of downloads keep their files elsewhere.
        """
        place = Path(os.path.realpath(picture.parent))
        return any(place.is_relative_to(os.path.realpath(root)) for root in (*self.folders, *self.roots))

    def images_beside(self, used: Iterable[Path]) -> list[Path]:
        """Return the indexed images that are none of ``used``, whatever their spellings and links; sorted."""
        known = {file_key(path) for path in used}
        images = sorted(image.path for images in self.names.values() for image in images)
        return [path for path in images if file_key(path) not in known]


def index_images(
    folders: Iterable[Path], *, endings: Collection[str], roots: Iterable[str | Path] = ()
) -> ImageIndex:
    """Return the index of all files with one of ``endings`` below ``folders`` (hidden folders left out)."""
    index = ImageIndex(folders=tuple(folders), roots=tuple(map(Path, roots)), names={}, stems={})
    for folder in index.folders:
        above = Path(os.path.abspath(folder)).parts
        for directory, children, files in os.walk(folder):
            children[:] = sorted(child for child in children if not child.startswith("."))
            below = Path(directory).relative_to(folder).parts
            for file in sorted(files):
                if file.rpartition(".")[2].lower() in endings and not file.startswith("."):
                    _add(index, IndexedImage(path=Path(directory, file), below=(*below, file), folder=above))
    return index


def index_files(paths: Collection[Path]) -> ImageIndex:
    """Return the index of these files alone, below the folder that all of them lie in."""
    folder = Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    index = ImageIndex(folders=(folder,), roots=(), names={}, stems={})
    for path in paths:
        below = Path(os.path.abspath(path)).relative_to(folder).parts
        _add(index, IndexedImage(path=path, below=below, folder=folder.parts))
    return index


def _add(index: ImageIndex, image: IndexedImage) -> None:
    index.names.setdefault(same_name(image.below[-1]), []).append(image)
    index.stems.setdefault(name_key(image.below[-1]), []).append(image)


def _best(files: Sequence[IndexedImage], written: Sequence[str]) -> list[Path]:
    """Return the files that a written path fits best."""
    fits = [(fit, file.path) for file in files if (fit := file.fit(written)) is not None]
    best = max((fit for fit, _ in fits), default=None)
    return [path for fit, path in fits if fit == best]
