"""A lock on a run directory that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import platform
from pathlib import Path


class RunLock:
    """Held from construction to ``release``, or to the end of the process.

    The lock is the kernel's (``flock``), so a file left behind by a dead process locks nothing. The
    file stays on disk: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path, *, directory: Path) -> None:
        """Takes the lock at ``path`` for ``directory``; raises ``ValueError`` naming the holder if taken."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise ValueError(
                f"{directory} is in use by {holder}: wait for it or choose another name="
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}\n")
        self._file.flush()

    def release(self) -> None:
        """Give the lock up; harmless when repeated."""
        self._file.close()
