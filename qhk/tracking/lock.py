"""A lock on a run directory that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import platform
import weakref
from collections.abc import Callable
from pathlib import Path


class DirectoryInUseError(ValueError):
    """Another process holds the run directory; the message names it and the fix in one line."""


def lock_path(directory: Path) -> Path:
    """The lock of a run directory: beside it, so that the directory itself can be moved."""
    return directory.with_name(f".{directory.name}.lock")


class RunLock:
    """Held from construction to ``release``, or to the end of the process.

    The lock is the kernel's (``flock``), so a file left behind by a dead process locks nothing. The
    file stays on disk: removing it would let two processes lock two files of one name. A forked child
    drops its copy at once, so that a worker that outlives a killed run holds nothing.
    """

    def __init__(self, path: Path, *, directory: Path) -> None:
        """Takes the lock at ``path`` for ``directory``; ``DirectoryInUseError`` names the holder if taken."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise DirectoryInUseError(
                f"{directory} is in use by {holder}: wait for it or choose another name="
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}\n")
        self._file.flush()
        release = weakref.WeakMethod(self.release)
        os.register_at_fork(after_in_child=lambda: _call(release))

    def release(self) -> None:
        """Give the lock up; harmless when repeated. In a forked child the parent keeps it."""
        self._file.close()


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    bound = method()
    if bound is not None:
        bound()
