"""What the end of a process means, and statuses that two write at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qhk.sweep import process
from qhk.sweep.process import explain_exit, oom_kills, record_end, record_job
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path
from qhk.tracking.status import STATUS_FILE, RunState, Status, read_status
from tests.sweep.builders import MakeSweep, set_status


def test_a_job_is_named_while_its_run_waits(make_sweep: MakeSweep) -> None:
    run = make_sweep("a").runs[0]
    set_status(run, RunState.PENDING)
    record_job(run, "7_0")
    status = read_status(run.directory / STATUS_FILE)
    assert status is not None and (status.state, status.slurm_job) == (RunState.PENDING, "7_0")


def test_a_job_that_fails_at_once_keeps_its_word(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins and ends while the submission, which has just seen it wait, writes its number."""
    run = make_sweep("a").runs[0]
    set_status(run, RunState.PENDING)
    shut_out: list[str] = []

    def fail(path: Path) -> Status | None:
        status = read_status(path)
        try:
            lock = RunLock(lock_path(run.directory), directory=run.directory)
        except DirectoryInUseError as error:
            shut_out.append(error.holder)
        else:
            set_status(run, RunState.FAILED, cause="loss is NaN")
            lock.release()
        return status

    monkeypatch.setattr(process, "read_status", fail)
    record_job(run, "7_0")
    if shut_out:
        set_status(run, RunState.FAILED, cause="loss is NaN")
    record_job(run, "7_0")
    status = read_status(run.directory / STATUS_FILE)
    assert status is not None and (status.state, status.cause) == (RunState.FAILED, "loss is NaN")


def test_a_kill_is_a_lack_of_memory_only_where_that_is_known(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    assert explain_exit(-9, log, out_of_memory=False) == "killed by SIGKILL (from outside, or out of memory)"
    assert (
        explain_exit(-9, log, out_of_memory=True) == "killed by SIGKILL (out of memory: the kernel ended it)"
    )
    assert explain_exit(-15, log, out_of_memory=True) == "killed by SIGTERM"
    log.write_text("qhk: data: nothing there\nmore\n")
    assert explain_exit(2, log, out_of_memory=True) == "data: nothing there (exit code 2)"


@pytest.mark.parametrize(
    ("groups", "file", "content", "expected"),
    [
        ("0::/job_7/task_0", "job_7/task_0/memory.events", "low 0\noom 3\noom_kill 2\n", 2),
        (
            "5:cpu,cpuacct:/\n4:memory:/job_7\n0::/",
            "memory/job_7/memory.oom_control",
            "under_oom 0\noom_kill 5\n",
            5,
        ),
        ("5:cpu:/a\n0::/", "memory/memory.oom_control", "oom_kill 5\n", 0),
        ("", "memory.events", "oom_kill 5\n", 0),
    ],
)
def test_the_cgroup_counts_the_kernels_kills(
    tmp_path: Path, groups: str, file: str, content: str, expected: int
) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(content)
    proc.write_text(groups + "\n" if groups else "")
    assert oom_kills(proc, root) == expected


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 128 MiB below this process's own, to which processes can be moved."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    place = next((line.split(":", 2)[2] for line in lines if ":memory:" in line), None)
    if place is None or os.geteuid() != 0:
        pytest.skip("NOT TESTED: the kernel's own kills need root and a memory cgroup of version 1")
    group = Path("/sys/fs/cgroup/memory") / place.lstrip("/") / f"qhk_test_{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(128 * 2**20))
    except OSError as error:
        pytest.skip(f"NOT TESTED: no memory cgroup can be made here ({error})")
    yield group
    group.rmdir()


WITHIN = """
import os, signal, subprocess, sys
from pathlib import Path
from qhk.sweep.process import explain_exit, oom_kills
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
for code in ("import os; os.kill(os.getpid(), 9)", "b = bytearray(1 << 20) * 400"):
    before = oom_kills()
    child = subprocess.run([sys.executable, "-c", code])
    print(explain_exit(child.returncode, Path("nothing"), out_of_memory=oom_kills() > before))
"""


def test_the_kernels_own_kill_is_told_from_anothers(small_cgroup: Path) -> None:
    words = [sys.executable, "-c", WITHIN, str(small_cgroup)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        "killed by SIGKILL (from outside, or out of memory)",
        "killed by SIGKILL (out of memory: the kernel ended it)",
    ]


def test_what_a_run_said_of_its_end_stays(make_sweep: MakeSweep) -> None:
    run = make_sweep("a").runs[0]
    set_status(run, RunState.PREEMPTED, cause="stopped by SIGTERM")
    record_end(run.directory, state=RunState.FAILED, cause=f"killed by {signal.SIGKILL.name}")
    status = read_status(run.directory / STATUS_FILE)
    assert status is not None and status.cause == "stopped by SIGTERM"
    record_end(run.directory, state=RunState.CANCELLED, cause="cancelled")
    status = read_status(run.directory / STATUS_FILE)
    assert status is not None and (status.state, status.cause) == (RunState.CANCELLED, "cancelled")
