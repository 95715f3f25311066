"""The part of a SLURM task that is ours: it starts the run's process, passes signals on, corrects the status.

A queued job finds ``CellJob`` by this module's name in the code that its sweep has frozen, which may be of an
earlier version: keep the name of the module, the class and its fields.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from submitit.core.utils import DelayedSubmission, UncompletedJobError
from submitit.helpers import TorchDistributedEnvironment

from qhk.sweep.process import (
    explain_exit,
    oom_kills,
    rank_environment,
    rank_log,
    record_end,
    record_timeout,
    start_process,
)
from qhk.sweep.scheduler import OUT_OF_TIME
from qhk.tracking.status import STATUS_FILE, RunState, read_status

POLL_S = 0.2

LINGER_S = 900.0
"""How long a task whose run has ended at SIGTERM waits for SLURM to end or requeue it."""


class CellEndedError(RuntimeError):
    """Raised where the run's process has failed, so that SLURM records the job as FAILED."""


@dataclass(kw_only=True)
class CellJob:
    """One run, which submitit pickles and calls in every task of the job.

    ``patience_s`` is how long the run may take for its checkpoint after SLURM's early signal.
    """

    command: list[str]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    cwd: Path
    patience_s: float
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    terminated: bool = field(default=False, init=False)

    def __call__(self) -> None:
        """Run to the end. Raises CellEndedError where the run is not done then."""
        signal.signal(signal.SIGTERM, self._terminate)
        place, kills = TorchDistributedEnvironment(), oom_kills()
        log = rank_log(self.log, place.rank)
        ranks = rank_environment(
            rank=place.rank,
            local_rank=place.local_rank,
            count=place.world_size,
            host=place.master_addr,
            port=place.master_port,
        )
        self.process = start_process(
            self.command, log=log, cwd=self.cwd, environment={**self.environment, **ranks}
        )
        try:
            code = self.process.wait()
        except UncompletedJobError:
            # Raised by submitit's signal handler at one time-out more than it may requeue.
            if place.rank == 0:
                record_timeout(self.directory, f"{OUT_OF_TIME}: the job reached its limit once too often")
            raise
        if code == 0 and (place.rank != 0 or self._is_done()):
            return
        if self.terminated:
            # SLURM is ending or requeueing the job; one that fails by itself first would not be requeued.
            time.sleep(LINGER_S)
        cause = explain_exit(code, log, out_of_memory=oom_kills() > kills)
        if place.rank == 0:
            record_end(self.directory, state=RunState.FAILED, cause=cause)
        raise CellEndedError(cause)

    def checkpoint(self) -> DelayedSubmission | None:
        """Stop the run at SIGUSR2 and return the job to requeue; None for one that is done or has failed."""
        if self.process is not None:
            _stop(self.process.pid, patience_s=self.patience_s)
        status = read_status(self.directory / STATUS_FILE)
        if status is not None and status.state in (RunState.DONE, RunState.FAILED):
            return None
        record_end(self.directory, state=RunState.PREEMPTED, cause="before its first checkpoint")
        return DelayedSubmission(replace(self))

    def _is_done(self) -> bool:
        """Return whether the run says that it is done, which its exit code alone does not prove."""
        status = read_status(self.directory / STATUS_FILE)
        return status is not None and status.state is RunState.DONE

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """Handle the SIGTERM that SLURM sends to every process of a job before it kills them."""
        self.terminated = True
        if self.process is not None and not _has_ended(self.process.pid):
            os.kill(self.process.pid, signal.SIGTERM)


def _stop(pid: int, *, patience_s: float) -> None:
    """Ask a child of this process for its checkpoint, and kill it where that takes too long."""
    end = time.monotonic() + patience_s
    if not _has_ended(pid):
        os.kill(pid, signal.SIGUSR2)
    while not _has_ended(pid):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(POLL_S)


def _has_ended(pid: int) -> bool:
    """Return whether a child of this process has ended, without waiting for it.

    For signal handlers: the code that they interrupt may hold the lock of the ``Popen`` object.
    """
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
