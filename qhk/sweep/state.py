"""Where a sweep stands: every run's status, judged with what scheduler and launcher know of it."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from qhk.sweep.manifest import JobEvent, Manifest, SweepRun, last_events
from qhk.sweep.process import record_end
from qhk.sweep.scheduler import ask_slurm
from qhk.tracking.lock import DirectoryInUseError, RunLock
from qhk.tracking.status import STATUS_FILE, Ending, RunState, Status, read_status, settle_status

TAIL = 32768
RATE_STEPS = 20
"""Steps whose times the estimate of the remaining time rests on."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as a reader sees it now.

    ``active``: a process or a queued job will bring it on by itself. ``eta_s``: seconds that its remaining
    training steps take at the present rate, without evaluations; None where that is not known.
    """

    run: SweepRun
    state: RunState
    cause: str
    status: Status | None
    job: str
    active: bool
    eta_s: float | None

    @property
    def resumable(self) -> bool:
        """Whether ``resume`` has to start it again."""
        return self.state is not RunState.DONE and not self.active


def launcher_lock(folder: Path) -> RunLock:
    """The lock that a local launcher holds while it works. Raises DirectoryInUseError where one does."""
    return RunLock(folder / ".launcher.lock", directory=folder)


def look(manifest: Manifest) -> list[RunView]:
    """Every run of the sweep; what only the scheduler knew about a run's end is recorded in its directory."""
    events = last_events(manifest)
    jobs = {run.label: _job(run, events.get(run.label)) for run in manifest.runs}
    endings = ask_slurm(jobs.values())
    launching = _is_launching(manifest.folder)
    views: dict[str, RunView] = {}
    for run in manifest.runs:
        twin = views.get(run.same_as)
        if twin is not None:
            views[run.label] = replace(twin, run=run)
        else:
            facts = Facts(
                run=run,
                last=events.get(run.label),
                job=jobs[run.label],
                ending=endings.get(jobs[run.label]),
                launching=launching,
            )
            views[run.label] = _view(facts, settle_status(run.directory, scheduler=endings.get))
    return list(views.values())


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run beside its status: the last event, its job, SLURM's word, a launcher at work."""

    run: SweepRun
    last: JobEvent | None
    job: str
    ending: Ending | None
    launching: bool


def _job(run: SweepRun, last: JobEvent | None) -> str:
    """The run's SLURM job, "" for none: the one this sweep submitted, else the one its status names."""
    if last is not None:
        return last.job
    status = read_status(run.directory / STATUS_FILE)
    return "" if status is None else status.slurm_job or ""


def _view(facts: Facts, status: Status | None) -> RunView:
    state = RunState.PENDING if status is None else status.state
    cause = "" if status is None else status.cause
    active = state is RunState.RUNNING
    if state in (RunState.PENDING, RunState.PREEMPTED):
        state, cause, active = _unsettled(facts, state, cause)
    return RunView(
        run=facts.run,
        state=state,
        cause=cause,
        status=status,
        job=facts.job,
        active=active,
        eta_s=_eta(facts.run, status, state),
    )


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
        return _after_job(facts.run, state, cause, facts.job, ending)
    if last is None:
        return state, cause or "not started", False
    if facts.launching:
        return state, cause, state is RunState.PENDING
    return state, cause or "its launcher has ended; resume starts it", False


CANCELLED = "cancelled by qhk sweep cancel"


def _after_job(
    run: SweepRun, state: RunState, cause: str, job: str, ending: Ending | None
) -> tuple[RunState, str, bool]:
    """The same for a run whose SLURM job is in the queue no more."""
    if ending is None:
        return state, cause or f"SLURM says nothing about job {job} here", state is RunState.PENDING
    if state is RunState.PREEMPTED and ending.state is not RunState.CANCELLED:
        return state, cause or ending.cause, False
    record_end(run.directory, state=ending.state, cause=ending.cause)
    return ending.state, ending.cause, False


def _is_launching(folder: Path) -> bool:
    try:
        launcher_lock(folder).release()
    except DirectoryInUseError:
        return True
    return False


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
