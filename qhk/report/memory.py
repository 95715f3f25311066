"""What was read of runs' files, so that a page that is kept up to date reads again only what changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Memory:
    """What files said, until they have another time or size, and what was made of it."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Hashable, Any]] = {}

    def read(self, path: Path, reader: Callable[[Path], T]) -> T:
        """Return ``reader(path)``, from memory where the file is as it was. Raises what the reader raises."""
        there = path.stat()
        return self.keep((path, reader), (there.st_mtime_ns, there.st_size), lambda: reader(path))

    def keep(self, name: Hashable, signature: Hashable, make: Callable[[], T]) -> T:
        """Return what was made last under ``name`` if it had this ``signature``, else make it anew."""
        if name not in self._kept or self._kept[name][0] != signature:
            self._kept[name] = (signature, make())
        made: T = self._kept[name][1]
        return made
