"""Folders make room for new ones: all of them or none, and never while a run is in one."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.tracking.archive import archive_runs
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path
from qhk.tracking.status import STATUS_FILE, RunState, current_status, write_status


def made(root: Path, name: str, state: RunState, **changes: object) -> Path:
    path = root / name / "seed0"
    status = current_status(state=state, step=3, cause="")
    write_status(path / STATUS_FILE, replace(status, **changes))
    return path


def test_what_has_ended_moves_and_what_was_never_there_does_not_matter(tmp_path: Path) -> None:
    paths = [made(tmp_path, "a", RunState.DONE), tmp_path / "b" / "seed0"]
    archive_runs(paths)
    assert sorted(path.name for path in tmp_path.glob("*/seed0*")) == ["seed0.replaced-1"]
    for path in paths:
        RunLock(lock_path(path), directory=path).release()


def test_a_run_on_another_machine_keeps_all_where_they_are(tmp_path: Path) -> None:
    paths = [
        made(tmp_path, "a", RunState.DONE),
        made(tmp_path, "b", RunState.RUNNING, machine="other", host="node7", pid=4321),
    ]
    with pytest.raises(
        ValueError, match=r"b/seed0 is in use by process 4321 on node7: fresh=true would move it"
    ):
        archive_runs(paths)
    assert all(path.exists() for path in paths)
    RunLock(lock_path(paths[0]), directory=paths[0]).release()


def test_a_lock_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """Whoever records a run's end holds its directory just as its next start may come."""
    path = tmp_path / "seed0"
    first = RunLock(lock_path(path), directory=path)
    with pytest.raises(DirectoryInUseError, match="seed0 is in use by process"):
        RunLock(lock_path(path), directory=path, patience_s=0.1)
    timer = threading.Timer(0.3, first.release)
    timer.start()
    RunLock(lock_path(path), directory=path, patience_s=30.0).release()
    timer.join()
