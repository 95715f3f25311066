"""A lock on a run directory that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import platform
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO

from qhk.errors import UserError
from qhk.files import writing

POLL_S = 0.05


FIX = "wait for it or choose another name="


class DirectoryInUseError(UserError):
    """Another process, ``holder``, has the directory; the message names both and the fix in one line."""

    def __init__(self, directory: Path, holder: str, fix: str) -> None:
        super().__init__(f"{directory} is in use by {holder}: {fix}")
        self.holder = holder


def holder_name(pid: int, host: str) -> str:
    """Return the name of a process, as its lock has it."""
    return f"process {pid} on {host}"


def lock_path(directory: Path) -> Path:
    """Return the path of a run directory's lock: beside it, so that the directory itself can be moved."""
    return directory.with_name(f".{directory.name}.lock")


class RunLock:
    """Held from construction to ``release``, or to the end of the process.

    The lock is the kernel's (``flock``), so a file left behind by a dead process locks nothing. The
    file stays on disk: removing it would let two processes lock two files of one name. A forked child
    drops its copy at once, so that a worker that outlives a killed run holds nothing.
    """

    def __init__(self, path: Path, *, directory: Path, patience_s: float = 0.0, fix: str = FIX) -> None:
        """Take the lock at ``path`` for ``directory``; ``DirectoryInUseError`` names the holder if taken.

        ``patience_s``: how long to try. Whoever records something in a directory holds its lock for a moment.
        """
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+", encoding="utf-8")
        end = time.monotonic() + patience_s
        while not _taken(self._file):
            if time.monotonic() >= end:
                self._file.seek(0)
                holder = self._file.read().strip() or "another process"
                self._file.close()
                raise DirectoryInUseError(directory, holder, fix)
            time.sleep(POLL_S)
        self._file.truncate(0)
        self._file.write(holder_name(os.getpid(), platform.node()) + "\n")
        self._file.flush()
        release = weakref.WeakMethod(self.release)
        os.register_at_fork(after_in_child=lambda: _call(release))

    def release(self) -> None:
        """Give the lock up; harmless when repeated. In a forked child the parent keeps it."""
        self._file.close()


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    bound = method()
    if bound is not None:
        bound()
