"""Folders are archived, not deleted, to make room for new ones of their name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from qhk.errors import UserError
from qhk.files import writing
from qhk.tracking.lock import RunLock, holder_name, lock_path
from qhk.tracking.status import STATUS_FILE, RunState, judge_status, read_status

FIX = "fresh=true would move it; end the run first"


def archive_folder(path: Path) -> None:
    """Rename ``path``, a folder or a file, to ``<name>.replaced-<n>``, if it exists."""
    if not os.path.lexists(path):
        return
    names = (f"{path.name}.replaced-{number}" for number in itertools.count(1))
    archived = next(new for name in names if not os.path.lexists(new := path.with_name(name)))
    with writing(path):
        path.rename(archived)


def archive_runs(paths: Sequence[Path]) -> None:
    """Archive run directories, all of them or none.

    Raises ``UserError`` where a process holds the lock of one, or where the status of one says that a
    process on another machine is running it.
    """
    with ExitStack() as held:
        for path in paths:
            lock = RunLock(lock_path(path), directory=path, fix=FIX)
            held.callback(lock.release)
            status = read_status(path / STATUS_FILE)
            if status is not None and judge_status(status).state is RunState.RUNNING:
                raise UserError(f"{path} is in use by {holder_name(status.pid, status.host)}: {FIX}")
        for path in paths:
            archive_folder(path)
