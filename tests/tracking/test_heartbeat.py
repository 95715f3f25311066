"""The heartbeat goes on by itself, and stops with the last word."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.tracking import heartbeat as module
from qhk.tracking.heartbeat import Heartbeat
from qhk.tracking.status import RunState, Status, read_status


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def status_of(path: Path) -> Status:
    status = read_status(path)
    assert status is not None
    return status


def test_it_beats_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.01)
    path = tmp_path / "run" / "status.json"
    heart = Heartbeat(path, step=3)
    path.unlink()
    until(path.exists)
    write, tries = module.write_status, []

    def refused(path: Path, status: Status) -> None:
        tries.append(path)
        raise OSError("the disk is gone")

    monkeypatch.setattr(module, "write_status", refused)
    until(lambda: len(tries) > 1)
    path.unlink()
    monkeypatch.setattr(module, "write_status", write)
    until(path.exists)
    heart.end(RunState.FAILED, cause="no\nmore")
    last = path.read_bytes()
    time.sleep(0.1)
    assert path.read_bytes() == last
    assert (status_of(path).state, status_of(path).cause, status_of(path).step) == ("failed", "no more", 3)


def test_reports_keep_what_they_do_not_name(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    heart = Heartbeat(path, step=0)
    for news in ({"total_steps": 40}, {"step": 5}, {"srcc": 0.25}, {"step": 6}):
        heart.report(**news)  # type: ignore[arg-type]
    status = status_of(path)
    assert (status.state, status.step, status.total_steps, status.srcc) == (RunState.RUNNING, 6, 40, 0.25)
    heart.stop()
    heart.stop()
