"""When two written names, or two paths, are one: the ways in which label files and disks spell them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from qhk.data.adapter import IMAGE_ENDINGS, VIDEO_ENDINGS


def same_name(name: str) -> str:
    """Return a name as all its spellings have it: without upper case, accents in one form (NFC)."""
    return unicodedata.normalize("NFC", name).lower()


def name_key(name: str) -> str:
    """Return an image name without folder, extension and case: equal for two spellings of one name."""
    last = same_name(name).replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, ending = last.rpartition(".")
    return stem if dot and ending in IMAGE_ENDINGS | VIDEO_ENDINGS else last


def written_parts(path: str) -> tuple[str, ...]:
    """Return the folders and the name in a path as a label writes it.

    Slashes of both kinds part them, a drive letter is a folder like others, and ``.``, ``..`` and empty parts
    are worked out: ``C:\\data\\.\\sub\\\\A.JPG`` gives C:, data, sub, A.JPG.
    """
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def path_key(path: str) -> str:
    """Return a written path with its folders: equal for two spellings of one path."""
    return "/".join(written_parts(same_name(path)))


def shared_tail(one: Sequence[str], other: Sequence[str]) -> int:
    """Return in how many parts two paths agree, counted from their ends."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if same_name(left) != same_name(right):
            break
        count += 1
    return count


def file_key(path: Path) -> str:
    """Return what exactly those paths have in common that lead to one file.

    That is the path from the root with all links followed, in one spelling of accents (NFC); case counts.
    """
    return unicodedata.normalize("NFC", os.path.realpath(path))
