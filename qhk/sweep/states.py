"""The state of every run of a sweep, from its own record and from what scheduler and launcher know."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from qhk.files import parse_json, read_log
from qhk.settings.sweep import SlurmLauncherSettings
from qhk.sweep.manifest import JobEvent, Manifest, SweepRun, is_cancelled, last_events
from qhk.sweep.process import FINAL, UNPROVEN, record_cause, record_end, record_timeout
from qhk.sweep.scheduler import OUT_OF_MEMORY, OUT_OF_TIME, SlurmAnswer, ask_slurm, cluster_name
from qhk.tracking.lock import DirectoryInUseError, RunLock, lock_path
from qhk.tracking.status import (
    STATUS_FILE,
    JobState,
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
    """The present state of a run.

    ``active``: a process or a queued job will bring it on by itself. ``unreachable``: why the scheduler could
    not be asked about its job, so that the state rests on the heartbeat alone; "" otherwise.
    ``eta_s``: seconds that its remaining training steps take at the present rate, without evaluations; None
    where that is not known.
    """

    run: SweepRun
    state: RunState
    cause: str
    status: Status | None
    job: str
    active: bool
    unreachable: str
    eta_s: float | None

    @property
    def may_be_active(self) -> bool:
        """Whether it is active, or nobody knows."""
        return self.active or bool(self.unreachable)

    @property
    def resumable(self) -> bool:
        """Whether ``resume`` has to start it again."""
        return self.state is not RunState.DONE and not self.may_be_active


def sweep_lock(folder: Path) -> RunLock:
    """Take the lock of whoever starts or cancels runs, from reading their states to recording that.

    Raises DirectoryInUseError where another holds it.
    """
    return RunLock(lock_path(folder), directory=folder, fix="another command starts or cancels it; try again")


def launcher_lock(folder: Path, *, patience_s: float = 0.0) -> RunLock:
    """Take the lock that a local launcher holds while it works. Raises DirectoryInUseError where one does.

    ``patience_s``: how long to try, since whoever reads the states holds it for a moment.
    """
    fix = "its launcher is at work; wait or cancel"
    return RunLock(folder / ".launcher.lock", directory=folder, fix=fix, patience_s=patience_s)


def launcher_at_work(folder: Path) -> str:
    """Return the local launcher that works on the sweep, as its lock names it; "" for none."""
    try:
        launcher_lock(folder).release()
    except DirectoryInUseError as error:
        return error.holder
    return ""


def read_states(manifest: Manifest) -> list[RunView]:
    """Return the state of every run; ends that only the scheduler knew are recorded in run directories."""
    events = last_events(manifest)
    jobs = {run.label: _job(run, events.get(run.label)) for run in manifest.runs}
    answer = ask_slurm({job: _job_name(manifest, events.get(label)) for label, job in jobs.items()})
    elsewhere = _other_clusters(events.values(), answer)
    launching = bool(launcher_at_work(manifest.folder))
    views: dict[str, RunView] = {}
    # A run may be listed before the one whose directory it shares: that of a cell which has begun already.
    for run in sorted(manifest.runs, key=lambda run: bool(run.same_as)):
        shared, job = views.get(run.same_as), jobs[run.label]
        if shared is not None:
            views[run.label] = replace(shared, run=run)
            continue
        facts = _Facts(
            run=run,
            last=events.get(run.label),
            job=job,
            endings=answer.endings,
            unreachable=elsewhere.get(job, answer.unreachable) if job else "",
            launching=launching,
        )
        views[run.label] = _view(facts)
    return [views[run.label] for run in manifest.runs]


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """All that is known of a run beside its status.

    ``last``: the last event about it; ``job``: its SLURM job, "" for none; ``endings``: SLURM's answer about
    all jobs; ``unreachable``: why there is none; ``launching``: whether a local launcher works on the sweep.
    """

    run: SweepRun
    last: JobEvent | None
    job: str
    endings: Mapping[str, JobState]
    unreachable: str
    launching: bool

    @property
    def ending(self) -> JobState | None:
        """SLURM's answer about the run's job."""
        return self.endings.get(self.job)

    @property
    def taken_up_since(self) -> bool:
        """Whether another sweep that shares the run has made it wait again since this one's last event."""
        status = read_status(self.run.directory / STATUS_FILE)
        if status is None or status.state is not RunState.PENDING or self.last is None:
            return False
        return _written(status) > self.last.time

    def since_submitted_s(self) -> float:
        """Return the seconds since the run was submitted, by this sweep or by whoever wrote its status."""
        if self.last is not None:
            return time.time() - self.last.time
        status = read_status(self.run.directory / STATUS_FILE)
        return math.inf if status is None else heartbeat_age_s(status)


def _job(run: SweepRun, last: JobEvent | None) -> str:
    """Return the run's SLURM job, "" for none: the one this sweep submitted, or that its status names.

    Another sweep that shares the run may have submitted it after this one: then the status is the newer.
    """
    status = read_status(run.directory / STATUS_FILE)
    named = "" if status is None else status.slurm_job or ""
    if last is None:
        return named
    return named if status is not None and named and _written(status) > last.time else last.job


def _written(status: Status) -> float:
    """Return when a status was written, in seconds since the epoch."""
    return datetime.fromisoformat(status.heartbeat).timestamp()


def _job_name(manifest: Manifest, last: JobEvent | None) -> str:
    """Return the name that this sweep gave a run's job; "" where another sweep, or the user, named it."""
    launcher = manifest.launcher
    if last is None or not isinstance(launcher, SlurmLauncherSettings):
        return ""
    named = any(key.replace("-", "_") == "job_name" for key in launcher.additional_parameters)
    return "" if named else manifest.name


def _other_clusters(events: Iterable[JobEvent], answer: SlurmAnswer) -> dict[str, str]:
    """Return job -> why its absence means nothing, for those submitted to another cluster than this one."""
    absent = [event for event in events if event.job and event.cluster and event.job not in answer.endings]
    if not absent or answer.unreachable:
        return {}
    here = cluster_name()
    return {
        event.job: f"SLURM cluster {here} cannot be asked about the jobs of {event.cluster}"
        for event in absent
        if event.cluster != here
    }


def _view(facts: _Facts) -> RunView:
    recorded, status = _judged(facts)
    state = RunState.PENDING if status is None else status.state
    cause = "" if status is None else status.cause
    active = state is RunState.RUNNING
    unreachable = "" if recorded in FINAL else facts.unreachable
    if state in (RunState.PENDING, RunState.PREEMPTED) and not unreachable:
        state, cause, active = _unfinished(facts, state, cause)
    return RunView(
        run=facts.run,
        state=state,
        cause=cause,
        status=status,
        job=facts.job,
        active=active,
        unreachable=unreachable,
        eta_s=_eta(facts.run, status, state),
    )


def _judged(facts: _Facts) -> tuple[RunState | None, Status | None]:
    """Return the state that the run recorded, and its status as judged from heartbeat, process and job.

    The judgement is recorded, unless SLURM would have to be asked and cannot be.
    """
    directory = facts.run.directory
    recorded = read_status(directory / STATUS_FILE)
    if recorded is None:
        return None, None
    if facts.unreachable:
        return recorded.state, judge_status(recorded)
    if recorded.state is RunState.FAILED and UNPROVEN in recorded.cause and facts.ending == OUT_OF_MEMORY:
        record_cause(directory, OUT_OF_MEMORY.cause)
    return recorded.state, settle_status(directory, scheduler=facts.endings.get)


def _unfinished(facts: _Facts, state: RunState, cause: str) -> tuple[RunState, str, bool]:
    """Return state, cause and activity of a run that is pending or preempted."""
    last, ending = facts.last, facts.ending
    waits = ending is not None and ending.state in (RunState.PENDING, RunState.RUNNING)
    at_work = waits or (facts.launching and not facts.job)
    if last is not None and is_cancelled(last) and not at_work and not facts.taken_up_since:
        record_end(facts.run.directory, state=RunState.CANCELLED, cause=last.cause)
        return RunState.CANCELLED, last.cause, False
    if ending is not None and waits:
        return state, "; ".join(filter(None, [cause, ending.cause])), True
    if facts.job:
        return _after_job(facts, state, cause)
    if last is None:
        return state, cause or "not started", False
    if facts.launching:
        return state, cause, state is RunState.PENDING
    return state, cause or "its launcher has ended; resume starts it", False


def _after_job(facts: _Facts, state: RunState, cause: str) -> tuple[RunState, str, bool]:
    """Return the same for a run whose SLURM job has left the queue."""
    ending = facts.ending
    if ending is None:
        if facts.since_submitted_s() < LOST_S:
            return state, cause or f"SLURM does not show job {facts.job} yet", True
        ending = JobState(state=RunState.FAILED, cause=LOST)
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
    """Return the seconds of the last training steps in a metrics file; empty for none. Reads its end only."""
    lines = read_log(path, tail=TAIL)
    found = []
    for line in lines[1:] if len(lines) > 1 else lines:  # the first step also gets ready
        if line.endswith("}") and '"time/step_s"' in line:
            try:
                found.append(float(parse_json(line)["time/step_s"]))
            except (ValueError, TypeError, LookupError):  # damaged, or null for a time that was not finite
                continue
    return found
