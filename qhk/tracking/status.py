"""``status.json``: where a run stands, kept fresh by a heartbeat, and how readers judge an old one."""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from qhk.files import read_json, reading, typed, write_atomically
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path

HEARTBEAT_S = 15.0
"""The period of the heartbeat."""

STALE_S = 120.0
"""A heartbeat older than this, several periods, has stopped."""

STATUS_FILE = "status.json"


class RunState(StrEnum):
    """The states of a run. What ``running`` with an old heartbeat means, ``judge_status`` says."""

    PENDING = "pending"
    RUNNING = "running"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where a run stands, as the process that wrote it says.

    ``cause``: one line, why a run failed or stopped; else empty. ``step`` of ``total_steps`` (None until it
    is known) are done; ``srcc`` is the last one measured, on the validation part or the mean of the
    benchmarks, None before. ``heartbeat``: UTC, ISO 8601. ``pid`` on ``host`` is the writer;
    ``pid_started`` (clock ticks since boot) and ``machine`` (boot and pid name space) tell it from a later
    process of the same number, 0 and "" where the system does not say. ``slurm_job``: "12" or "12_3".
    ``warning``: one line, what is wrong with a run that goes on, as signs of collapse; else empty.
    """

    state: RunState
    cause: str
    step: int
    total_steps: int | None
    srcc: float | None
    heartbeat: str
    pid: int
    pid_started: int
    host: str
    machine: str
    slurm_job: str | None
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """What a scheduler says about a job: the state of its run and, where the job has ended, why."""

    state: RunState
    cause: str


Scheduler = Callable[[str], JobState | None]
"""What a scheduler knows about a job id; None for a job it does not know."""


def read_status(path: Path) -> Status | None:
    """Return the status in ``path``, None without one. Raises ``UserError`` for any other file."""
    if not path.exists():
        return None
    with reading(path, "a status file", "remove it"):
        status = typed(Status, read_json(path))
        heartbeat_age_s(status)
        return status


def current_status(
    *,
    state: RunState,
    step: int,
    cause: str,
    total_steps: int | None = None,
    srcc: float | None = None,
    warning: str = "",
) -> Status:
    """Return the status of this process now. White space in ``cause`` becomes single blanks."""
    return Status(
        state=state,
        cause=" ".join(cause.split()),
        step=step,
        total_steps=total_steps,
        srcc=srcc if srcc is not None and math.isfinite(srcc) else None,
        heartbeat=datetime.now(UTC).isoformat(timespec="seconds"),
        pid=os.getpid(),
        pid_started=_start_ticks(os.getpid()),
        host=platform.node(),
        machine=_machine(),
        slurm_job=_slurm_job(),
        warning=warning,
    )


def write_status(path: Path, status: Status) -> None:
    """Write ``status`` atomically; in place where the disk has no room for a second file.

    A status of one block that is there already needs no new room, so that a full disk can be told.
    """
    text = json.dumps(asdict(status), indent=1) + "\n"
    try:
        write_atomically(path, text)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not path.exists():
            raise
        with path.open("r+", encoding="utf-8") as file:
            file.write(text)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def heartbeat_age_s(status: Status, *, now: datetime | None = None) -> float:
    """Return seconds since the heartbeat, at ``now`` (the present time where None)."""
    return ((now or datetime.now(UTC)) - datetime.fromisoformat(status.heartbeat)).total_seconds()


def judge_status(
    status: Status, *, now: datetime | None = None, scheduler: Scheduler | None = None
) -> Status:
    """Return ``status``, corrected at ``now`` where it is ``running`` but its process is not.

    On the machine that wrote it, the process decides: dead or replaced by another of its number means
    ``failed``. Elsewhere a heartbeat older than ``STALE_S`` does. The scheduler, asked where there is one
    and the run was its job, may know better: preempted, cancelled, timed out, or running still.
    Nothing is written: see ``settle_status``.
    """
    if status.state is not RunState.RUNNING:
        return status
    alive, age = writer_alive(status), heartbeat_age_s(status, now=now)
    if age < STALE_S and alive is not False:
        return status
    if alive:
        return replace(status, cause=f"process {status.pid} lives, but gave no heartbeat for {age:.0f} s")
    known = scheduler(status.slurm_job) if scheduler is not None and status.slurm_job is not None else None
    if known is not None:
        return replace(status, state=known.state, cause=known.cause or f"no heartbeat for {age:.0f} s")
    return replace(status, state=RunState.FAILED, cause=_silent_death(status, alive=alive))


def settle_status(directory: Path, *, scheduler: Scheduler | None = None) -> Status | None:
    """Return the judged status of a run directory, recorded there where it is news; None without a status.

    Recorded under the directory's lock: a run that has just taken up its directory again keeps its word.
    """
    path = directory / STATUS_FILE
    status = read_status(path)
    if status is None or judge_status(status, scheduler=scheduler).state is status.state:
        return None if status is None else judge_status(status, scheduler=scheduler)
    try:
        lock = RunLock(lock_path(directory), directory=directory)
    except DirectoryInUseError:
        return read_status(path)
    try:
        status = read_status(path)
        if status is None:
            return None
        judged = judge_status(status, scheduler=scheduler)
        if judged.state is not status.state:
            write_status(path, judged)
        return judged
    finally:
        lock.release()


def writer_alive(status: Status) -> bool | None:
    """Return whether the process that wrote ``status`` lives; None where this machine cannot know."""
    if not status.machine or status.machine != _machine():
        return None
    return status.pid_started != 0 and _start_ticks(status.pid) == status.pid_started


def _silent_death(status: Status, *, alive: bool | None) -> str:
    where = f"process {status.pid} on {status.host}"
    last = f"last heartbeat {status.heartbeat}, step {status.step}"
    if alive is False:
        return f"{where} died without a word: SIGKILL, out of memory or a crash ({last})"
    if status.host == platform.node() and status.machine.partition(" ")[0] != _machine().partition(" ")[0]:
        return f"{where} ended with a restart of the machine ({last})"
    return f"{where} went silent: killed, out of memory or node lost ({last})"


def _machine() -> str:
    """Return the boot and the pid name space of this process; "" where the system does not tell."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not boot.exists() or not space.is_symlink():
        return ""
    return f"{boot.read_text(encoding='utf-8').strip()} {os.readlink(space)}"


def _start_ticks(pid: int) -> int:
    """Return the start of a living process in clock ticks since boot; 0 for a zombie or without /proc."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # the second field, in parentheses, is a name that may hold blanks and parentheses itself
    fields = content.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def _slurm_job() -> str | None:
    """Return the job of this process as SLURM's commands take it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array is not None and task is not None:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID")


class Heartbeat:
    """Writes ``status.json``: at every ``report``, every ``HEARTBEAT_S`` seconds, and at the ``end``."""

    def __init__(self, path: Path, *, step: int, srcc: float | None = None) -> None:
        """Write ``running`` at ``step`` and start the thread."""
        self._path, self._step, self._srcc = path, step, srcc
        self._total_steps: int | None = None
        self._warning = ""
        self._mutex, self._over = threading.Lock(), threading.Event()
        self._write(RunState.RUNNING, "")
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def report(
        self,
        *,
        step: int | None = None,
        total_steps: int | None = None,
        srcc: float | None = None,
        warning: str | None = None,
    ) -> None:
        """Write the status with these changes (None: as before)."""
        self._step = self._step if step is None else step
        self._total_steps = self._total_steps if total_steps is None else total_steps
        self._srcc = self._srcc if srcc is None else srcc
        self._warning = self._warning if warning is None else warning
        self._write(RunState.RUNNING, "")

    def end(self, state: RunState, *, cause: str) -> None:
        """Stop the thread and write how the run ended."""
        self.stop()
        self._write(state, cause)

    def stop(self) -> None:
        """Stop the thread; harmless when repeated."""
        self._over.set()
        self._thread.join()

    def _write(self, state: RunState, cause: str) -> None:
        with self._mutex:
            status = current_status(
                state=state,
                step=self._step,
                cause=cause,
                total_steps=self._total_steps,
                srcc=self._srcc,
                warning=self._warning,
            )
            write_status(self._path, status)

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            try:
                self._write(RunState.RUNNING, "")
            except OSError:
                # A full or absent disk must not end the run from here; readers see the age of the last beat.
                continue
