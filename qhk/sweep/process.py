"""The process of a run: how it is started on the sweep's frozen code, and what its end means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from qhk.files import write_atomically
from qhk.sweep.manifest import Manifest, SweepRun
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path
from qhk.tracking.status import STATUS_FILE, RunState, Status, present_status, read_status, write_status

LOG_TAIL = 65536
FINAL = (RunState.DONE, RunState.FAILED, RunState.CANCELLED)

CANCELLED = "cancelled by qhk sweep cancel"

UNPROVEN = "from outside, or out of memory"
"""All that a SIGKILL says of itself."""


def run_command(manifest: Manifest, run: SweepRun) -> list[str]:
    """The command of a run's process: this interpreter, the frozen settings, the code's digest.

    ``-P`` keeps the working directory, maybe a changed checkout, out of the import path.
    """
    return [sys.executable, "-P", "-m", "qhk.cli.cell", str(manifest.config(run)), run.code]


def run_environment(manifest: Manifest, run: SweepRun, ranks: Mapping[str, str]) -> dict[str, str]:
    """The environment of a run's process: this one's, the frozen code first, and ``ranks``."""
    paths = [str(manifest.code_folder(run)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **ranks}


def start_process(
    command: list[str], *, log: Path, cwd: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A started process that appends to ``log``, in its own session: Ctrl-C reaches the launcher alone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def announce(run: SweepRun) -> None:
    """Says ``pending`` in the run's directory, which it makes and claims for its id.

    A run in work is left alone, and so is one that is done.
    """
    with suppress(DirectoryInUseError), _held(run.directory) as path:
        status = read_status(path)
        if status is not None and status.state is RunState.DONE:
            return
        write_atomically(run.directory / "run_id", run.run_id + "\n")
        step, total, srcc = (status.step, status.total_steps, status.srcc) if status else (0, None, None)
        pending = present_status(state=RunState.PENDING, step=step, cause="", total_steps=total, srcc=srcc)
        write_status(path, replace(pending, slurm_job=None))


def name_job(run: SweepRun, job: str) -> None:
    """Writes the job's id into the status of a run that still waits, for whoever reads that alone.

    A job that has begun, and maybe ended, since it was submitted has said so: its word stays.
    """
    with suppress(DirectoryInUseError), _held(run.directory) as path:
        status = read_status(path)
        if status is not None and status.state is RunState.PENDING:
            write_status(path, replace(status, slurm_job=job))


def record_end(directory: Path, *, state: RunState, cause: str) -> None:
    """Writes how a run ended that could not say so itself; what it did say, and a run in work, stay.

    A cancelled run that had time for its checkpoint says ``preempted``: that too becomes ``cancelled``.
    """
    with suppress(DirectoryInUseError), _held(directory) as path:
        status = read_status(path)
        if status is not None and status.state in FINAL:
            return
        if status is not None and status.state is RunState.PREEMPTED and state is not RunState.CANCELLED:
            return
        write_status(path, _ended(status, state, cause))


def record_timeout(directory: Path, cause: str) -> None:
    """Writes that a run has run out of time, beside what it said itself when it was asked to stop."""
    with suppress(DirectoryInUseError), _held(directory) as path:
        status = read_status(path)
        if status is None or status.state not in FINAL:
            stopped = status.cause if status is not None and status.state is RunState.PREEMPTED else ""
            line = "; ".join(filter(None, [cause, stopped]))
            write_status(path, _ended(status, RunState.FAILED, line))


def record_cause(directory: Path, cause: str) -> None:
    """Writes a better founded cause for the failure that a run's status already tells."""
    with suppress(DirectoryInUseError), _held(directory) as path:
        status = read_status(path)
        if status is not None and status.state is RunState.FAILED:
            write_status(path, _ended(status, RunState.FAILED, cause))


@contextmanager
def _held(directory: Path) -> Iterator[Path]:
    """The status file of a run directory, whose lock is held meanwhile. Raises DirectoryInUseError."""
    lock = RunLock(lock_path(directory), directory=directory)
    try:
        yield directory / STATUS_FILE
    finally:
        lock.release()


def _ended(status: Status | None, state: RunState, cause: str) -> Status:
    line = " ".join(cause.split())
    if status is None:
        return present_status(state=state, step=0, cause=line)
    return replace(status, state=state, cause=line)


def explain_exit(code: int, log: Path, *, out_of_memory: bool) -> str:
    """Why a process ended, in one line: its last words, or the signal that ended it.

    ``out_of_memory``: whether the kernel says that it ended a process for want of memory meanwhile.
    """
    if code < 0:
        known = {int(one): one.name for one in signal.Signals}
        name = known.get(-code, f"signal {-code}")
        if name != "SIGKILL":
            return f"killed by {name}"
        return f"killed by SIGKILL ({'out of memory: the kernel ended it' if out_of_memory else UNPROVEN})"
    words = last_words(log)
    return f"{words} (exit code {code})" if words else f"exit code {code}"


def last_words(log: Path) -> str:
    """The last line that the command line meant for the user, else the last line of the log; "" for none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    ours = [line.removeprefix("qhk: ") for line in lines if line.startswith("qhk: ")]
    return (ours or lines or [""])[-1]


def oom_kills(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of this process's cgroup the kernel has ended for want of memory.

    0 where the kernel does not say: outside a memory cgroup a SIGKILL leaves no trace of its sender that
    everybody may read. Source: Linux, cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (oom_control).
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
