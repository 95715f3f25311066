"""What runs inside a SLURM task: it starts the run's process, passes signals on, and sees to the status."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from submitit.core.utils import DelayedSubmission, UncompletedJobError
from submitit.helpers import TorchDistributedEnvironment

from qhk.sweep.process import explain_exit, oom_kills, record_end, record_timeout, start_process
from qhk.sweep.ranks import rank_variables
from qhk.sweep.scheduler import OUT_OF_TIME
from qhk.tracking.status import STATUS_FILE, RunState, read_status

POLL_S = 0.2

LINGER_S = 900.0
"""How long a task whose run has left at SIGTERM waits for SLURM to end or requeue it."""


class CellEndedError(RuntimeError):
    """The run's process ended badly; the message says how. It makes SLURM's record say FAILED."""


@dataclass(kw_only=True)
class CellJob:
    """One run as submitit pickles and calls it, in every task of the job.

    ``patience_s`` is how long the run may take over its checkpoint after the signal that SLURM sends ahead.
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
        """Returns once the run is done. Raises CellEndedError where it ended otherwise."""
        signal.signal(signal.SIGTERM, self._terminate)
        place, kills = TorchDistributedEnvironment(), oom_kills()
        log = self.log if place.rank == 0 else self.log.with_name(f"console.rank{place.rank}.log")
        ranks: dict[str, str] = {}
        if place.world_size > 1:
            ranks = rank_variables(
                rank=place.rank,
                local_rank=place.local_rank,
                count=place.world_size,
                host=place.master_addr,
                port=place.master_port,
            )
        environment = {**os.environ, **self.environment, **ranks}
        self.process = start_process(self.command, log=log, cwd=self.cwd, environment=environment)
        try:
            code = self.process.wait()
        except UncompletedJobError:
            # submitit's answer, by way of its signal handler, to one time-out more than it may requeue
            if place.rank == 0:
                record_timeout(self.directory, f"{OUT_OF_TIME}: the job reached its limit once too often")
            raise
        if code == 0:
            return
        if self.terminated:
            # SLURM is ending or requeueing the job; one that fails by itself first would not be requeued.
            time.sleep(LINGER_S)
        cause = explain_exit(code, log, out_of_memory=oom_kills() > kills)
        if place.rank == 0:
            record_end(self.directory, state=RunState.FAILED, cause=cause)
        raise CellEndedError(cause)

    def checkpoint(self) -> DelayedSubmission | None:
        """The job to requeue after SIGUSR2, once the run has written its checkpoint; None for a done one."""
        if self.process is not None:
            _stop(self.process.pid, patience_s=self.patience_s)
        status = read_status(self.directory / STATUS_FILE)
        if status is not None and status.state in (RunState.DONE, RunState.FAILED):
            return None
        record_end(self.directory, state=RunState.PREEMPTED, cause="preempted before its first checkpoint")
        return DelayedSubmission(
            CellJob(
                command=self.command,
                environment=self.environment,
                directory=self.directory,
                log=self.log,
                cwd=self.cwd,
                patience_s=self.patience_s,
            )
        )

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """SLURM sends this to every process of the job before it kills them."""
        self.terminated = True
        if self.process is not None and not _has_ended(self.process.pid):
            os.kill(self.process.pid, signal.SIGTERM)


def _stop(pid: int, *, patience_s: float) -> None:
    """Asks a child of this process for its checkpoint, and ends it where it takes longer than it may."""
    end = time.monotonic() + patience_s
    if not _has_ended(pid):
        os.kill(pid, signal.SIGUSR2)
    while not _has_ended(pid):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(POLL_S)


def _has_ended(pid: int) -> bool:
    """Whether a child of this process has ended; it can still be waited for.

    Signal handlers ask here: what they interrupt may hold the lock of the ``Popen`` object.
    """
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
