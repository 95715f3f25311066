"""status.json: one vocabulary, whole or not at all, and what it means once its writer is gone."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qhk.tracking import status as module
from qhk.tracking.lock import RunLock, lock_path
from qhk.tracking.status import (
    STALE_S,
    Heartbeat,
    JobState,
    RunState,
    Status,
    current_status,
    judge_status,
    read_status,
    settle_status,
    write_status,
)

RUNNING, FAILED = RunState.RUNNING, RunState.FAILED


def running(**changes: object) -> Status:
    return replace(current_status(state=RUNNING, step=12, cause="", total_steps=40, srcc=0.5), **changes)


def aged(status: Status, seconds: float) -> Status:
    then = datetime.fromisoformat(status.heartbeat) - timedelta(seconds=seconds)
    return replace(status, heartbeat=then.isoformat(timespec="seconds"))


def elsewhere(seconds: float, **changes: object) -> Status:
    """A status of another machine, of that age."""
    return aged(running(machine="other boot", host="node7", **changes), seconds)


def test_round_trip_with_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert read_status(path) is None
    status = current_status(state=FAILED, step=12, cause="loss is nan\nat step 12", srcc=math.nan)
    write_status(path, status)
    assert read_status(path) == status
    assert status.cause == "loss is nan at step 12"
    assert (status.pid, status.srcc, status.total_steps) == (os.getpid(), None, None)
    assert status.pid_started > 0 and status.machine
    age = datetime.now(UTC) - datetime.fromisoformat(status.heartbeat)
    assert -1 <= age.total_seconds() < 60
    assert json.loads(path.read_text())["state"] == "failed"


@pytest.mark.parametrize("text", ["{", "{}", '{"state": "asleep"}', '{"state": "done"}'])
def test_foreign_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "status.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"status\.json is not a status file"):
        read_status(path)


def test_slurm_jobs_are_named_as_its_commands_take_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert running().slurm_job == "17"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "15")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    assert running().slurm_job == "15_2"


def test_a_full_disk_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_status(path, running(cause="a long story " * 20))

    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    status = current_status(state=FAILED, step=3, cause="the disk is full")
    write_status(path, status)
    assert read_status(path) == status
    with pytest.raises(OSError, match="No space"):
        write_status(tmp_path / "new.json", status)


@pytest.mark.parametrize("state", [state for state in RunState if state is not RUNNING])
def test_a_last_word_stands(state: RunState) -> None:
    status = elsewhere(1e6, state=state)
    assert judge_status(status) is status


def test_the_living_run(tmp_path: Path) -> None:
    assert judge_status(running()) == running()
    hanging = judge_status(aged(running(), 600))
    assert hanging.state is RUNNING and f"process {os.getpid()} lives, but gave no heartbeat" in hanging.cause


def test_a_dead_process_is_known_at_once_also_unwaited_or_replaced() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = module._start_ticks(child.pid)
    status = running(pid=child.pid, pid_started=started)
    assert judge_status(status).state is RUNNING
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = judge_status(status)
    child.communicate()
    for judged in (zombie, judge_status(status), judge_status(running(pid_started=1))):
        assert judged.state is FAILED
        assert "died without a word" in judged.cause and "step 12" in judged.cause
    assert (zombie.step, zombie.heartbeat, zombie.pid) == (12, status.heartbeat, child.pid)


@pytest.mark.parametrize(("age", "state"), [(STALE_S - 5, RUNNING), (STALE_S + 5, FAILED)])
def test_elsewhere_the_heartbeat_decides(age: float, state: RunState) -> None:
    judged = judge_status(elsewhere(age))
    assert judged.state is state
    if state is FAILED:
        assert "process" in judged.cause and "on node7 went silent" in judged.cause


def test_a_restarted_machine_is_named() -> None:
    status = aged(running(machine="earlier-boot pid:[1]"), 600)
    assert "ended with a restart of the machine" in judge_status(status).cause


def test_the_scheduler_knows_better() -> None:
    asked: list[str] = []

    def slurm(job: str) -> JobState | None:
        asked.append(job)
        return endings[job]

    endings = {
        "1": JobState(state=RunState.PREEMPTED, cause="SLURM job 1: PREEMPTED"),
        "2": JobState(state=RUNNING, cause=""),
        "3": None,
    }
    judged = {job: judge_status(elsewhere(600, slurm_job=job), scheduler=slurm) for job in endings}
    assert (judged["1"].state, judged["1"].cause) == (RunState.PREEMPTED, "SLURM job 1: PREEMPTED")
    assert judged["2"].state is RUNNING and "no heartbeat for 60" in judged["2"].cause
    assert judged["3"].state is FAILED and "went silent" in judged["3"].cause
    assert judge_status(elsewhere(0, slurm_job="1"), scheduler=slurm).state is RUNNING
    assert judge_status(elsewhere(600, slurm_job=None), scheduler=slurm).state is FAILED
    assert asked == ["1", "2", "3"]


def test_settling_records_the_verdict_once(tmp_path: Path) -> None:
    directory = tmp_path / "seed0"
    assert settle_status(directory) is None
    write_status(directory / "status.json", running(pid_started=1))
    settled = settle_status(directory)
    assert settled is not None and settled.state is FAILED
    assert read_status(directory / "status.json") == settled == settle_status(directory)


def test_settling_leaves_a_directory_that_is_held(tmp_path: Path) -> None:
    directory = tmp_path / "seed0"
    write_status(directory / "status.json", running(pid_started=1))
    lock = RunLock(lock_path(directory), directory=directory)
    settled = settle_status(directory)
    lock.release()
    assert settled is not None and settled.state is RUNNING
    assert read_status(directory / "status.json") == settled


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
