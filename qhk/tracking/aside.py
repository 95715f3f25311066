"""Folders that make room for new ones of their name: renamed, never deleted, and never in use."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from qhk.errors import UserError
from qhk.tracking.lock import RunLock, holder_name, lock_path
from qhk.tracking.status import STATUS_FILE, RunState, judge_status, read_status

FIX = "fresh=true would move it; end the run first"


def move_aside(path: Path) -> None:
    """Renames the folder to ``<name>.replaced-<n>``, where there is one; nothing is deleted."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.replaced-{number}")).exists():
        number += 1
    path.rename(aside)


def move_runs_aside(paths: Sequence[Path]) -> None:
    """Moves run directories aside, as ``move_aside`` does: all of them, or none.

    Raises ValueError, one line, where a process holds one of them, or says on another machine that it runs.
    """
    with ExitStack() as held:
        for path in paths:
            lock = RunLock(lock_path(path), directory=path, fix=FIX)
            held.callback(lock.release)
            status = read_status(path / STATUS_FILE)
            if status is not None and judge_status(status).state is RunState.RUNNING:
                raise UserError(f"{path} is in use by {holder_name(status.pid, status.host)}: {FIX}")
        for path in paths:
            move_aside(path)
