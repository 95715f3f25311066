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
from qhk.settings.sweep import LocalLauncherSettings
from qhk.sweep.manifest import Manifest, SweepRun, event, last_events, record_events
from qhk.sweep.process import (
    CANCELLED,
    announce,
    explain_exit,
    oom_kills,
    record_end,
    run_command,
    run_environment,
    start_process,
)
from qhk.sweep.ranks import rank_variables
from qhk.tracking.status import STATUS_FILE, RunState, Status, read_status

POLL_S = 0.2
NVIDIA_SMI_S = 60.0
"""How long ``nvidia-smi`` may take; with many GPUs and no persistence daemon it needs many seconds."""

SIBLINGS_S = 20.0
"""How long the other processes of a run may go on after one of them has failed."""


@dataclass(kw_only=True)
class ActiveRun:
    """A run in work: its processes by rank, and the GPUs it holds."""

    run: SweepRun
    processes: list[subprocess.Popen[bytes]]
    gpus: tuple[str, ...]
    broken_since: float | None = None
    called_off_since: float | None = None

    def poll(self) -> int | None:
        """The exit code once all processes have ended: the first rank's failure, else 0; None before."""
        codes = [process.poll() for process in self.processes]
        if all(code is not None for code in codes):
            return next((code for code in codes if code), 0)
        if any(codes):
            self._end_siblings()
        return None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to every process that lives."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def call_off(self, grace_s: float) -> None:
        """Asks for a checkpoint, once, and ends the run where it takes longer than it may."""
        if self.called_off_since is None:
            self.called_off_since = time.monotonic()
            self.send(signal.SIGTERM)
        elif time.monotonic() - self.called_off_since > grace_s:
            self.send(signal.SIGKILL)

    def _end_siblings(self) -> None:
        """The others would wait for the failed one for ever."""
        if self.broken_since is None:
            self.broken_since = time.monotonic()
            self.send(signal.SIGTERM)
        elif time.monotonic() - self.broken_since > SIBLINGS_S:
            self.send(signal.SIGKILL)


@dataclass(kw_only=True)
class LocalLauncher:
    """Starts the runs that wait as places and GPUs come free, and sees to their statuses.

    ``ended`` is told every run's last status. Ctrl-C, or SIGTERM, asks the runs in work for a checkpoint,
    waits ``grace_s``, and marks all that did not finish as cancelled; then KeyboardInterrupt goes on. A run
    that the sweep's record calls off, whoever wrote that and wherever, is stopped in the same way.
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
        """Claims the runs, in the sweep's record too. Raises ValueError where GPUs do not go round."""
        self.free.extend(self._gpu_sets(len(runs)))
        for run in runs:
            announce(run)
        record_events(self.manifest, [event("submitted", run.label) for run in runs])
        self.waiting.extend(runs)

    def work(self) -> None:
        """Returns when all runs that it has taken have ended."""
        waiting, free = self.waiting, self.free
        with _terminate_as_interrupt():
            try:
                while waiting or self.active:
                    self._heed_cancelled()
                    while waiting and free:
                        self._start(waiting.popleft(), free.popleft())
                    time.sleep(POLL_S)
                    free.extend(self._collect())
            except KeyboardInterrupt:
                self._interrupt()
                raise

    def _gpu_sets(self, num_runs: int) -> list[tuple[str, ...]]:
        """One entry for each place: the GPUs of its run. Raises ValueError where they do not go round."""
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
        for rank in range(count):
            ranks = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus or self.settings.gpus == "none" else {}
            if count > 1:
                ranks |= rank_variables(rank=rank, local_rank=rank, count=count, host="127.0.0.1", port=port)
            log = run.log if rank == 0 else run.log.with_name(f"console.rank{rank}.log")
            processes.append(
                start_process(
                    run_command(self.manifest, run),
                    log=log,
                    cwd=self.manifest.cwd,
                    environment=run_environment(self.manifest, run, ranks),
                )
            )
        self.active.append(ActiveRun(run=run, processes=processes, gpus=gpus))
        self.started(run)

    def _collect(self) -> Iterator[tuple[str, ...]]:
        """The GPU sets of the runs that have ended since, whose statuses are set right first."""
        for active in list(self.active):
            code = active.poll()
            if code is None:
                continue
            self.active.remove(active)
            cause = explain_exit(code, active.run.log, out_of_memory=self._lacked_memory(code))
            cancelled = active.called_off_since is not None or self._is_cancelled(active.run)
            record_end(
                active.run.directory,
                state=RunState.CANCELLED if cancelled else RunState.FAILED,
                cause=CANCELLED if cancelled else cause,
            )
            self.ended(active.run, read_status(active.run.directory / STATUS_FILE))
            yield active.gpus

    def _lacked_memory(self, code: int) -> bool:
        """Whether the kernel has ended a process for want of memory that explains no earlier end yet."""
        if code != -signal.SIGKILL or oom_kills() <= self.ooms:
            return False
        self.ooms += 1
        return True

    def _heed_cancelled(self) -> None:
        events = last_events(self.manifest)
        called_off = {label for label, last in events.items() if last.kind == "cancelled"}
        for run in [run for run in self.waiting if run.label in called_off]:
            self.waiting.remove(run)
            record_end(run.directory, state=RunState.CANCELLED, cause=CANCELLED)
            self.ended(run, read_status(run.directory / STATUS_FILE))
        for active in self.active:
            if active.run.label in called_off:
                active.call_off(self.settings.grace_s)

    def _is_cancelled(self, run: SweepRun) -> bool:
        last = last_events(self.manifest).get(run.label)
        return last is not None and last.kind == "cancelled"

    def _interrupt(self) -> None:
        """Asks for checkpoints, waits, and leaves every status right; a second Ctrl-C does not wait."""
        everyone = [*self.waiting, *(active.run for active in self.active)]
        record_events(self.manifest, [event("cancelled", run.label) for run in everyone])
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
                record_end(run.directory, state=RunState.CANCELLED, cause="Ctrl-C in the launcher")


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
    """Inside, SIGTERM ends the launcher as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
