"""The runs of a sweep on this machine: one process each (or one per rank), some runs at a time."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from qhk.errors import UserError
from qhk.plain import print
from qhk.settings.sweep import LocalLauncherSettings
from qhk.sweep.manifest import Manifest, SweepRun, event, is_cancelled, last_events, record_events
from qhk.sweep.process import (
    explain_exit,
    mark_pending,
    oom_kills,
    rank_environment,
    rank_log,
    record_end,
    run_command,
    run_environment,
    start_process,
)
from qhk.tracking.status import STATUS_FILE, RunState, Status, read_status

POLL_S = 0.2
NVIDIA_SMI_S = 60.0
"""How long ``nvidia-smi`` may take; with many GPUs and no persistence daemon it needs many seconds."""

SIBLINGS_S = 20.0
"""How long the other processes of a run may go on after one of them has failed."""


@dataclass(kw_only=True)
class ActiveRun:
    """A running run: its processes by rank, and the GPUs it holds.

    ``broken_since`` and ``cancelled_since`` are when its processes were asked to stop, since one of them had
    failed, or since the run was cancelled.
    """

    run: SweepRun
    processes: list[subprocess.Popen[bytes]]
    gpus: tuple[str, ...]
    broken_since: float | None = None
    cancelled_since: float | None = None

    def poll(self) -> int | None:
        """Return the exit code once all processes have ended: the first failure, else 0; None before."""
        codes = [process.poll() for process in self.processes]
        if all(code is not None for code in codes):
            return next((code for code in codes if code), 0)
        if any(codes):
            # The others would wait for the failed one for ever.
            self.broken_since = self._stop(self.broken_since, SIBLINGS_S)
        return None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to every process that lives."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def cancel(self, grace_s: float) -> None:
        """Ask for a checkpoint once, and kill the run where that takes longer than ``grace_s``."""
        self.cancelled_since = self._stop(self.cancelled_since, grace_s)

    def _stop(self, since: float | None, patience_s: float) -> float:
        """Send SIGTERM once, then SIGKILL after ``patience_s``; return when the SIGTERM was sent."""
        if since is None:
            self.send(signal.SIGTERM)
            return time.monotonic()
        if time.monotonic() - since > patience_s:
            self.send(signal.SIGKILL)
        return since


@dataclass(kw_only=True)
class LocalLauncher:
    """Starts waiting runs as places and GPUs become free, and corrects their statuses when they end.

    ``ended`` is called with every run's last status. Ctrl-C, or SIGTERM, asks the active runs for a
    checkpoint, waits ``grace_s``, marks all that did not finish as cancelled, and raises KeyboardInterrupt. A
    run that the sweep's record says is cancelled, whichever machine wrote that, is stopped in the same way.
    """

    manifest: Manifest
    settings: LocalLauncherSettings
    started: Callable[[SweepRun], None]
    ended: Callable[[SweepRun, Status | None], None]
    waiting: deque[SweepRun] = field(default_factory=deque)
    active: list[ActiveRun] = field(default_factory=list)
    free: deque[tuple[str, ...]] = field(default_factory=deque)
    ooms: int = field(default_factory=oom_kills)

    def take(self, runs: Sequence[SweepRun]) -> None:
        """Queue the runs and record them as submitted. Raises UserError where there are too few GPUs."""
        self.free.extend(self._gpu_sets(len(runs)))
        for run in runs:
            mark_pending(run)
        record_events(self.manifest, [event("submitted", run.label) for run in runs])
        self.waiting.extend(runs)

    def work(self) -> None:
        """Run everything that was taken; return when all of it has ended."""
        waiting, free = self.waiting, self.free
        with _terminate_as_interrupt():
            try:
                while waiting or self.active:
                    self._stop_cancelled()
                    while waiting and free:
                        self._start(waiting.popleft(), free.popleft())
                    time.sleep(POLL_S)
                    free.extend(self._collect())
            except KeyboardInterrupt as interrupt:
                self._interrupt(f"by {str(interrupt) or 'Ctrl-C'} in the launcher")
                raise

    def _gpu_sets(self, num_runs: int) -> list[tuple[str, ...]]:
        """Return the GPUs of each place that a run can take. Raises UserError where there are too few."""
        jobs, each = min(self.settings.jobs, num_runs), self.settings.processes
        gpus = _listed_gpus() if self.settings.gpus == "auto" else self.settings.gpus
        if gpus == "none" or not gpus:
            return [()] * jobs
        places = len(gpus) // each
        if places == 0:
            raise UserError(
                f"hydra.launcher.processes: {each} needs as many GPUs, there are {len(gpus)}; "
                "lower it, or set hydra.launcher.gpus"
            )
        sets = [tuple(map(str, gpus[place * each : (place + 1) * each])) for place in range(places)]
        return sets[:jobs]

    def _start(self, run: SweepRun, gpus: tuple[str, ...]) -> None:
        count, port = self.settings.processes, _free_port()
        processes = []
        environment = run_environment(self.manifest, run)
        if gpus or self.settings.gpus == "none":
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        for rank in range(count):
            place = rank_environment(rank=rank, local_rank=rank, count=count, host="127.0.0.1", port=port)
            processes.append(
                start_process(
                    run_command(self.manifest, run),
                    log=rank_log(run.log, rank),
                    cwd=self.manifest.cwd,
                    environment={**environment, **place},
                )
            )
        self.active.append(ActiveRun(run=run, processes=processes, gpus=gpus))
        self.started(run)

    def _collect(self) -> Iterator[tuple[str, ...]]:
        """Correct the statuses of the runs that have ended since, and yield the GPUs that they held."""
        for active in list(self.active):
            code = active.poll()
            if code is None:
                continue
            self.active.remove(active)
            cause = explain_exit(code, active.run.log, out_of_memory=self._lacked_memory(code))
            last = last_events(self.manifest).get(active.run.label)
            if last is not None and is_cancelled(last):
                record_end(active.run.directory, state=RunState.CANCELLED, cause=last.cause)
            else:
                record_end(active.run.directory, state=RunState.FAILED, cause=cause)
            self.ended(active.run, read_status(active.run.directory / STATUS_FILE))
            yield active.gpus

    def _lacked_memory(self, code: int) -> bool:
        """Return whether the kernel reports one more kill for lack of memory than explained so far."""
        if code != -signal.SIGKILL or oom_kills() <= self.ooms:
            return False
        self.ooms += 1
        return True

    def _stop_cancelled(self) -> None:
        cancelled = {
            label: last.cause for label, last in last_events(self.manifest).items() if is_cancelled(last)
        }
        for run in [run for run in self.waiting if run.label in cancelled]:
            self.waiting.remove(run)
            record_end(run.directory, state=RunState.CANCELLED, cause=cancelled[run.label])
            self.ended(run, read_status(run.directory / STATUS_FILE))
        for active in self.active:
            if active.run.label in cancelled:
                active.cancel(self.settings.grace_s)

    def _interrupt(self, cause: str) -> None:
        """Ask for checkpoints, wait, and correct every status; a second Ctrl-C ends the waiting."""
        everyone = [*self.waiting, *(active.run for active in self.active)]
        record_events(self.manifest, [event("cancelled", run.label, cause=cause) for run in everyone])
        end = time.monotonic() + self.settings.grace_s
        try:
            for active in self.active:
                active.send(signal.SIGTERM)
            while self.active and time.monotonic() < end:
                time.sleep(POLL_S)
                deque(self._collect(), maxlen=0)
        finally:
            for active in self.active:
                active.send(signal.SIGKILL)
                for process in active.processes:
                    process.wait()
            for run in everyone:
                record_end(run.directory, state=RunState.CANCELLED, cause=cause)


def _listed_gpus() -> list[str]:
    """Return the GPUs that this process may use; none without a working ``nvidia-smi``, which a line says.

    Without a driver ``nvidia-smi`` prints its complaint where the list would be.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [item.strip() for item in visible.split(",") if item.strip()]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=NVIDIA_SMI_S
        )
        failure = "" if listed.returncode == 0 else f"exit code {listed.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        if shutil.which("nvidia-smi") is None:
            return []
        failure = " ".join(str(error).split())
    if failure:
        print(
            f"note: nvidia-smi failed ({failure}), so no GPU is given out; "
            "hydra.launcher.gpus=[0] would name them",
            file=sys.stderr,
        )
        return []
    return [str(number) for number, _ in enumerate(filter(None, listed.stdout.splitlines()))]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, with its name, as Ctrl-C does without, inside the context."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("SIGTERM")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
