"""Where a sweep stands: every run's status, judged with what scheduler and launcher know of it."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qhk.settings.sweep import SlurmLauncherSettings
from qhk.sweep.manifest import JobEvent, Manifest, SweepRun, last_events
from qhk.sweep.process import CANCELLED, FINAL, UNPROVEN, record_cause, record_end, record_timeout
from qhk.sweep.scheduler import OUT_OF_MEMORY, OUT_OF_TIME, SlurmAnswer, ask_slurm, cluster_name
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path
from qhk.tracking.status import (
    STATUS_FILE,
    Ending,
    RunState,
    Status,
    heartbeat_age_s,
    judge_status,
    read_status,
    settle_status,
)

TAIL = 32768
RATE_STEPS = 20
"""Steps whose times the estimate of the remaining time rests on."""


LOST_S = 120.0
"""A job submitted less long ago is not taken for one that SLURM has lost."""

LOST = "SLURM has lost the job: neither its queue nor its accounts know it"


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as a reader sees it now.

    ``active``: a process or a queued job will bring it on by itself. ``unheard``: why what became of its job
    could not be asked, "" where it could, or need not be; the state then rests on its heartbeat alone.
    ``eta_s``: seconds that its remaining training steps take at the present rate, without evaluations; None
    where that is not known.
    """

    run: SweepRun
    state: RunState
    cause: str
    status: Status | None
    job: str
    active: bool
    unheard: str
    eta_s: float | None

    @property
    def resumable(self) -> bool:
        """Whether ``resume`` has to start it again."""
        return self.state is not RunState.DONE and not self.active and not self.unheard


def sweep_lock(folder: Path) -> RunLock:
    """The lock of whoever starts or calls off runs of a sweep: from its look at them until that is recorded.

    Raises DirectoryInUseError where another does.
    """
    return RunLock(lock_path(folder), directory=folder, fix="another command starts or cancels it; try again")


def launcher_lock(folder: Path) -> RunLock:
    """The lock that a local launcher holds while it works. Raises DirectoryInUseError where one does."""
    return RunLock(folder / ".launcher.lock", directory=folder, fix="its launcher is at work; wait or cancel")


def launcher_at_work(folder: Path) -> str:
    """The local launcher that works on the sweep, as its lock names it; "" where none does."""
    try:
        launcher_lock(folder).release()
    except DirectoryInUseError as error:
        return error.holder
    return ""


def look(manifest: Manifest) -> list[RunView]:
    """Every run of the sweep; what only the scheduler knew about a run's end is recorded in its directory."""
    events = last_events(manifest)
    jobs = {run.label: _job(run, events.get(run.label)) for run in manifest.runs}
    answer = ask_slurm({job: _job_name(manifest, events.get(label)) for label, job in jobs.items()})
    foreign = _foreign(events.values(), answer)
    launching = bool(launcher_at_work(manifest.folder))
    views: dict[str, RunView] = {}
    for run in manifest.runs:
        twin, job = views.get(run.same_as), jobs[run.label]
        if twin is not None:
            views[run.label] = replace(twin, run=run)
            continue
        facts = Facts(
            run=run,
            last=events.get(run.label),
            job=job,
            endings=answer.endings,
            silence=foreign.get(job, answer.silence) if job else "",
            launching=launching,
        )
        views[run.label] = _view(facts)
    return list(views.values())


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run beside its status: the last event, its job, SLURM's words, a launcher at work.

    ``silence``: why SLURM could not be asked about its job, "" where it could.
    """

    run: SweepRun
    last: JobEvent | None
    job: str
    endings: Mapping[str, Ending]
    silence: str
    launching: bool

    @property
    def ending(self) -> Ending | None:
        """SLURM's word about the run's job."""
        return self.endings.get(self.job)

    def since_submitted_s(self) -> float:
        """Seconds since the run was handed over, by this sweep or by whoever wrote its status."""
        if self.last is not None:
            return time.time() - self.last.time
        status = read_status(self.run.directory / STATUS_FILE)
        return math.inf if status is None else heartbeat_age_s(status)


def _job(run: SweepRun, last: JobEvent | None) -> str:
    """The run's SLURM job, "" for none: the one this sweep submitted, or that its status names.

    Another sweep that shares the run may have submitted it after this one: then its status is the newer.
    """
    status = read_status(run.directory / STATUS_FILE)
    named = "" if status is None else status.slurm_job or ""
    if last is None or status is None or not named:
        return named if last is None else last.job
    return named if time.time() - heartbeat_age_s(status) > last.time else last.job


def _job_name(manifest: Manifest, last: JobEvent | None) -> str:
    """What this sweep called a run's job; "" where the job is another's, or was named by the user."""
    launcher = manifest.launcher
    if last is None or not isinstance(launcher, SlurmLauncherSettings):
        return ""
    named = any(key.replace("-", "_") == "job_name" for key in launcher.additional_parameters)
    return "" if named else manifest.name


def _foreign(events: Iterable[JobEvent], answer: SlurmAnswer) -> dict[str, str]:
    """Job -> why its absence says nothing, for those that were submitted to another cluster than this one."""
    absent = [event for event in events if event.job and event.cluster and event.job not in answer.endings]
    if not absent or answer.silence:
        return {}
    here = cluster_name()
    return {
        event.job: f"SLURM cluster {here} cannot be asked about the jobs of {event.cluster}"
        for event in absent
        if event.cluster != here
    }


def _view(facts: Facts) -> RunView:
    said, status = _judged(facts)
    state = RunState.PENDING if status is None else status.state
    cause = "" if status is None else status.cause
    active = state is RunState.RUNNING
    unheard = "" if said in FINAL else facts.silence
    if state in (RunState.PENDING, RunState.PREEMPTED):
        state, cause, active = (state, cause, False) if unheard else _unsettled(facts, state, cause)
    return RunView(
        run=facts.run,
        state=state,
        cause=cause,
        status=status,
        job=facts.job,
        active=active,
        unheard=unheard,
        eta_s=_eta(facts.run, status, state),
    )


def _judged(facts: Facts) -> tuple[RunState | None, Status | None]:
    """The state that the run itself has named, and its status as a reader judges it.

    What is judged is recorded, unless SLURM knows better and could not be asked.
    """
    directory = facts.run.directory
    said = read_status(directory / STATUS_FILE)
    if said is None:
        return None, None
    if facts.silence:
        return said.state, judge_status(said)
    if said.state is RunState.FAILED and UNPROVEN in said.cause and facts.ending == OUT_OF_MEMORY:
        record_cause(directory, OUT_OF_MEMORY.cause)
    return said.state, settle_status(directory, scheduler=facts.endings.get)


def _unsettled(facts: Facts, state: RunState, cause: str) -> tuple[RunState, str, bool]:
    """State, cause and activity of a run that waits, or has stopped with a word that it will go on."""
    last, ending = facts.last, facts.ending
    waits = ending is not None and ending.state in (RunState.PENDING, RunState.RUNNING)
    at_work = waits or (facts.launching and not facts.job)
    if last is not None and last.kind == "cancelled" and not at_work:
        record_end(facts.run.directory, state=RunState.CANCELLED, cause=CANCELLED)
        return RunState.CANCELLED, CANCELLED, False
    if ending is not None and waits:
        return state, "; ".join(filter(None, [cause, ending.cause])), True
    if facts.job:
        return _after_job(facts, state, cause)
    if last is None:
        return state, cause or "not started", False
    if facts.launching:
        return state, cause, state is RunState.PENDING
    return state, cause or "its launcher has ended; resume starts it", False


def _after_job(facts: Facts, state: RunState, cause: str) -> tuple[RunState, str, bool]:
    """The same for a run whose SLURM job is in the queue no more."""
    ending = facts.ending
    if ending is None:
        if facts.since_submitted_s() < LOST_S:
            return state, cause or f"SLURM does not show job {facts.job} yet", True
        ending = Ending(state=RunState.FAILED, cause=LOST)
    if ending.cause.startswith(OUT_OF_TIME):
        record_timeout(facts.run.directory, ending.cause)
        stopped = cause if state is RunState.PREEMPTED else ""
        return RunState.FAILED, "; ".join(filter(None, [ending.cause, stopped])), False
    if state is RunState.PREEMPTED and ending.state is not RunState.CANCELLED:
        return state, cause or ending.cause, False
    record_end(facts.run.directory, state=ending.state, cause=ending.cause)
    return ending.state, ending.cause, False


def _eta(run: SweepRun, status: Status | None, state: RunState) -> float | None:
    if state is not RunState.RUNNING or status is None or status.total_steps is None:
        return None
    times = step_times(run.directory / "metrics.jsonl")
    if not times:
        return None
    return (status.total_steps - status.step) * statistics.median(times[-RATE_STEPS:])


def step_times(path: Path) -> list[float]:
    """Seconds of the last training steps in a record; empty for none. Reads the record's end only."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    found = []
    for line in lines[1:] if len(lines) > 1 else lines:
        if line.endswith("}") and '"time/step_s"' in line:
            value = json.loads(line).get("time/step_s")
            found += [] if value is None else [float(value)]
    return found
