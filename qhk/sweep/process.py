"""The process of a run: how it starts on the frozen code, what its exit means, and its status file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from qhk.files import read_log, write_atomically, writing
from qhk.sweep.manifest import Manifest, SweepRun, import_path
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path
from qhk.tracking.status import STATUS_FILE, RunState, Status, current_status, read_status, write_status

LOG_TAIL = 65536
FINAL = (RunState.DONE, RunState.FAILED, RunState.CANCELLED)

UNPROVEN = "from outside, or out of memory"
"""The possible senders of a SIGKILL, where nothing tells them apart."""


def run_command(manifest: Manifest, run: SweepRun) -> list[str]:
    """Return the command of a run's process: this interpreter, the frozen settings, the code's digest.

    ``-P`` keeps the working directory, maybe a changed checkout, out of the import path.
    """
    return [sys.executable, "-P", "-m", "qhk.cli.cell", str(manifest.config(run)), run.code]


def run_environment(manifest: Manifest, run: SweepRun) -> dict[str, str]:
    """Return what a run's process needs in its environment: the frozen code first on the import path."""
    return {"PYTHONPATH": import_path(manifest.code_folder(run)), "PYTHONUNBUFFERED": "1"}


def rank_environment(*, rank: int, local_rank: int, count: int, host: str, port: int) -> dict[str, str]:
    """Return the variables by which torch and accelerate know a process among ``count``; none for one."""
    if count == 1:
        return {}
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
    }


def rank_log(log: Path, rank: int) -> Path:
    """Return where a process of a run writes: the first one to the run's log, others beside it."""
    return log if rank == 0 else log.with_name(f"console.rank{rank}.log")


def start_process(
    command: list[str], *, log: Path, cwd: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process that appends to ``log``; ``environment`` is added to this process's own.

    It has its own session, so that Ctrl-C reaches the launcher alone.
    """
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    with output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def mark_pending(run: SweepRun) -> None:
    """Write ``pending`` and the run's id into its directory, unless it is done or in work."""
    with suppress(DirectoryInUseError), _locked_status(run.directory) as path:
        status = read_status(path)
        if status is not None and status.state is RunState.DONE:
            return
        write_atomically(run.directory / "run_id", run.run_id + "\n")
        step, total, srcc = (status.step, status.total_steps, status.srcc) if status else (0, None, None)
        pending = current_status(state=RunState.PENDING, step=step, cause="", total_steps=total, srcc=srcc)
        write_status(path, replace(pending, slurm_job=None))


def record_job(run: SweepRun, job: str) -> None:
    """Write the job's id into the status of a run that still waits; one that has begun wrote it itself."""
    with suppress(DirectoryInUseError), _locked_status(run.directory) as path:
        status = read_status(path)
        if status is not None and status.state is RunState.PENDING:
            write_status(path, replace(status, slurm_job=job))


def record_end(directory: Path, *, state: RunState, cause: str) -> None:
    """Write how a run ended, unless it wrote that itself or is in work.

    A cancelled run that had time for its checkpoint says ``preempted``: that too becomes ``cancelled``.
    """
    with suppress(DirectoryInUseError), _locked_status(directory) as path:
        status = read_status(path)
        if status is not None and status.state in FINAL:
            return
        if status is not None and status.state is RunState.PREEMPTED and state is not RunState.CANCELLED:
            return
        write_status(path, _ended(status, state, cause))


def record_timeout(directory: Path, cause: str) -> None:
    """Write that a run has run out of time, before the cause that it gave itself when it was stopped."""
    with suppress(DirectoryInUseError), _locked_status(directory) as path:
        status = read_status(path)
        if status is None or status.state not in FINAL:
            stopped = status.cause if status is not None and status.state is RunState.PREEMPTED else ""
            write_status(path, _ended(status, RunState.FAILED, "; ".join(filter(None, [cause, stopped]))))


def record_cause(directory: Path, cause: str) -> None:
    """Replace the cause of a run that has failed by one that is better founded."""
    with suppress(DirectoryInUseError), _locked_status(directory) as path:
        status = read_status(path)
        if status is not None and status.state is RunState.FAILED:
            write_status(path, _ended(status, RunState.FAILED, cause))


@contextmanager
def _locked_status(directory: Path) -> Iterator[Path]:
    """Hold a run directory's lock and yield its status file. Raises DirectoryInUseError."""
    lock = RunLock(lock_path(directory), directory=directory)
    try:
        yield directory / STATUS_FILE
    finally:
        lock.release()


def _ended(status: Status | None, state: RunState, cause: str) -> Status:
    line = " ".join(cause.split())
    if status is None:
        return current_status(state=state, step=0, cause=line)
    return replace(status, state=state, cause=line)


def explain_exit(code: int, log: Path, *, out_of_memory: bool) -> str:
    """Return why a process ended, in one line: its last message, or the signal that ended it.

    ``out_of_memory``: whether the kernel has reported since that it ended a process for lack of memory.
    """
    if code < 0:
        known = {int(one): one.name for one in signal.Signals}
        name = known.get(-code, f"signal {-code}")
        if name != "SIGKILL":
            return f"killed by {name}"
        return f"killed by SIGKILL ({'out of memory: the kernel ended it' if out_of_memory else UNPROVEN})"
    message = last_message(log)
    return f"{message} (exit code {code})" if message else f"exit code {code}"


def last_message(log: Path) -> str:
    """Return the log's last line that begins with ``qhk:``, without that, else its last line; "" for none."""
    lines = [line.strip() for line in read_log(log, tail=LOG_TAIL) if line.strip()]
    ours = [line.removeprefix("qhk: ") for line in lines if line.startswith("qhk: ")]
    return (ours or lines or [""])[-1]


def oom_kills(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processes of this process's cgroup the kernel has ended for lack of memory.

    0 outside a memory cgroup, where the kernel does not count them.
    Source: Linux, cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (oom_control).
    """
    lines = proc.read_text(encoding="utf-8").splitlines() if proc.exists() else []
    for hierarchy, controllers, place in (line.split(":", 2) for line in lines):
        below = place.lstrip("/")
        if "memory" in controllers.split(","):
            path = root / "memory" / below / "memory.oom_control"
        elif hierarchy == "0":
            path = root / below / "memory.events"
        else:
            continue
        if path.exists():
            counts = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines())
            return int(counts.get("oom_kill", 0))
    return 0
