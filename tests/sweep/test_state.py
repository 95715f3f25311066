"""A run's state is its own word, or what scheduler and sweep know where it left none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qhk.sweep import state
from qhk.sweep.manifest import Manifest, event, record_events
from qhk.sweep.state import look, step_times
from qhk.tracking.status import STATUS_FILE, Ending, RunState, read_status
from tests.sweep.conftest import Build, say


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Ending]:
    """What the scheduler says about jobs; to be filled."""
    known: dict[str, Ending] = {}
    monkeypatch.setattr(state, "ask_slurm", lambda jobs: {job: known[job] for job in jobs if job in known})
    return known


def _submitted(manifest: Manifest, job: str = "5_0") -> None:
    record_events(manifest, [event("submitted", "a/seed0", job=job, pid=1, host="h")])


def _state(manifest: Manifest) -> tuple[RunState, str, bool]:
    view = look(manifest)[0]
    return view.state, view.cause, view.active


def test_a_run_nobody_touched(build: Build) -> None:
    assert _state(build("a")) == (RunState.PENDING, "not started", False)


@pytest.mark.parametrize("first", [RunState.PENDING, RunState.PREEMPTED])
def test_what_waits_in_the_queue_is_active(build: Build, slurm: dict[str, Ending], first: RunState) -> None:
    manifest = build("a")
    say(manifest.runs[0], first)
    _submitted(manifest)
    slurm["5_0"] = Ending(state=RunState.PENDING, cause="in the queue (Priority)")
    assert _state(manifest) == (first, "in the queue (Priority)", True)


def test_a_job_that_died_before_its_run_began_is_recorded(build: Build, slurm: dict[str, Ending]) -> None:
    manifest = build("a")
    say(manifest.runs[0], RunState.PENDING)
    _submitted(manifest)
    slurm["5_0"] = Ending(state=RunState.FAILED, cause="node lost")
    assert _state(manifest) == (RunState.FAILED, "node lost", False)
    status = read_status(manifest.runs[0].directory / STATUS_FILE)
    assert status is not None and (status.state, status.cause) == (RunState.FAILED, "node lost")


def test_a_preempted_run_whose_job_has_gone_waits_for_resume(build: Build, slurm: dict[str, Ending]) -> None:
    manifest = build("a")
    say(manifest.runs[0], RunState.PREEMPTED, cause="SIGTERM at step 4", step=4)
    _submitted(manifest)
    slurm["5_0"] = Ending(state=RunState.FAILED, cause="the job failed (exit code 75)")
    assert _state(manifest) == (RunState.PREEMPTED, "SIGTERM at step 4", False)
    slurm["5_0"] = Ending(state=RunState.CANCELLED, cause="cancelled (scancel)")
    assert _state(manifest) == (RunState.CANCELLED, "cancelled (scancel)", False)


def test_a_called_off_run_is_cancelled_once_it_has_stopped(build: Build, slurm: dict[str, Ending]) -> None:
    manifest = build("a")
    say(manifest.runs[0], RunState.PREEMPTED, step=4)
    record_events(manifest, [event("cancelled", "a/seed0", job="5_0", pid=1, host="h")])
    slurm["5_0"] = Ending(state=RunState.RUNNING, cause="")
    assert _state(manifest) == (RunState.PREEMPTED, "", True)
    del slurm["5_0"]
    assert _state(manifest) == (RunState.CANCELLED, "cancelled by qhk sweep cancel", False)


def test_the_time_that_is_left(build: Build) -> None:
    manifest = build("a")
    run = manifest.runs[0]
    say(run, RunState.RUNNING, step=4, total=10)
    rows = [{"step": step, "stage": "train", "time/step_s": float(step)} for step in range(1, 5)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run.directory / "metrics.jsonl").write_text(text + '{"step": 5, "time/st')
    assert step_times(run.directory / "metrics.jsonl") == [2.0, 3.0, 4.0]
    view = look(manifest)[0]
    assert (view.eta_s, view.active, view.resumable) == (6 * 3.0, True, False)


def test_no_record_is_no_estimate(tmp_path: Path) -> None:
    assert step_times(tmp_path / "nothing.jsonl") == []
