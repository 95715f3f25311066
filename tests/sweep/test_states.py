"""A run's state is its own word, or what scheduler and sweep know where it left none."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from qhk.files import append_json_lines
from qhk.sweep import states
from qhk.sweep.manifest import Manifest, event, record_events
from qhk.sweep.scheduler import OUT_OF_MEMORY, SlurmAnswer
from qhk.sweep.states import LOST, LOST_S, launcher_lock, read_states, step_times
from qhk.sweep.table import status_view
from qhk.tracking.status import STALE_S, STATUS_FILE, JobState, RunState, read_status
from tests.sweep.builders import MakeSweep, set_status


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> dict[str, JobState]:
    """What the scheduler of cluster "near" says about jobs, to be filled; "" in it makes it silent."""
    known: dict[str, JobState] = {}

    def ask(jobs: Iterable[str]) -> SlurmAnswer:
        if "" in known:
            return SlurmAnswer(endings={}, unreachable=known[""].cause)
        return SlurmAnswer(endings={job: known[job] for job in jobs if job in known}, unreachable="")

    monkeypatch.setattr(states, "ask_slurm", ask)
    monkeypatch.setattr(states, "cluster_name", lambda: "near")
    return known


DOWN = JobState(state=RunState.RUNNING, cause="SLURM's controller does not answer")


def _submitted(manifest: Manifest, job: str = "5_0", *, cluster: str = "", ago_s: float = 0.0) -> None:
    submitted = event("submitted", "a/seed0", job=job, cluster=cluster)
    record_events(manifest, [replace(submitted, time=submitted.time - ago_s)])


def _recorded(manifest: Manifest) -> tuple[RunState, str]:
    status = read_status(manifest.runs[0].directory / STATUS_FILE)
    assert status is not None
    return status.state, status.cause


def _elsewhere(manifest: Manifest, *, age_s: float) -> None:
    """The run says that it is at work on another machine, as SLURM job 5_0, and said so some time ago."""
    beat = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat(timespec="seconds")
    set_status(
        manifest.runs[0], RunState.RUNNING, machine="other", host="node7", heartbeat=beat, slurm_job="5_0"
    )


def _state(manifest: Manifest) -> tuple[RunState, str, bool]:
    view = read_states(manifest)[0]
    return view.state, view.cause, view.active


def test_a_run_nobody_touched(make_sweep: MakeSweep) -> None:
    assert _state(make_sweep("a")) == (RunState.PENDING, "not started", False)


@pytest.mark.parametrize("first", [RunState.PENDING, RunState.PREEMPTED])
def test_what_waits_in_the_queue_is_active(
    make_sweep: MakeSweep, slurm: dict[str, JobState], first: RunState
) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], first)
    _submitted(manifest)
    slurm["5_0"] = JobState(state=RunState.PENDING, cause="in the queue (Priority)")
    assert _state(manifest) == (first, "in the queue (Priority)", True)


def test_a_job_that_died_before_its_run_began_is_recorded(
    make_sweep: MakeSweep, slurm: dict[str, JobState]
) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.PENDING)
    _submitted(manifest)
    slurm["5_0"] = JobState(state=RunState.FAILED, cause="node lost")
    assert _state(manifest) == (RunState.FAILED, "node lost", False)
    assert _recorded(manifest) == (RunState.FAILED, "node lost")


@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_slurm_has_lost_is_for_resume_to_start(
    make_sweep: MakeSweep, slurm: dict[str, JobState], begun: bool
) -> None:
    """As with accounting off or purged, or a controller whose state is gone."""
    manifest = make_sweep("a")
    set_status(
        manifest.runs[0],
        RunState.PREEMPTED if begun else RunState.PENDING,
        cause="by signal" if begun else "",
    )
    _submitted(manifest, ago_s=LOST_S + 5)
    found = (RunState.PREEMPTED, "by signal") if begun else (RunState.FAILED, LOST)
    assert _state(manifest) == (*found, False) and read_states(manifest)[0].resumable
    assert _recorded(manifest) == found
    assert "neither its queue nor its accounts know it" in LOST


def test_a_job_just_submitted_is_not_lost(make_sweep: MakeSweep, slurm: dict[str, JobState]) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.PENDING)
    _submitted(manifest, ago_s=LOST_S - 60)
    assert _state(manifest) == (RunState.PENDING, "SLURM does not show job 5_0 yet", True)
    assert _recorded(manifest) == (RunState.PENDING, "")


def test_a_later_job_of_another_sweep_is_the_runs(make_sweep: MakeSweep, slurm: dict[str, JobState]) -> None:
    manifest = make_sweep("a")
    _submitted(manifest, ago_s=60.0)
    set_status(manifest.runs[0], RunState.PENDING, slurm_job="9")
    slurm["5_0"] = JobState(state=RunState.CANCELLED, cause="by scancel")
    slurm["9"] = JobState(state=RunState.PENDING, cause="in the queue (Priority)")
    assert _state(manifest) == (RunState.PENDING, "in the queue (Priority)", True)
    assert _recorded(manifest) == (RunState.PENDING, "")
    _submitted(manifest, job="11")
    slurm["11"] = JobState(state=RunState.PENDING, cause="in the queue (Resources)")
    assert _state(manifest) == (RunState.PENDING, "in the queue (Resources)", True)


def test_a_job_of_another_cluster_is_not_lost(make_sweep: MakeSweep, slurm: dict[str, JobState]) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.PENDING)
    _submitted(manifest, cluster="far", ago_s=LOST_S + 5)
    assert _state(manifest) == (RunState.PENDING, "", False)
    view = read_states(manifest)[0]
    assert (
        view.unreachable == "SLURM cluster near cannot be asked about the jobs of far" and not view.resumable
    )
    _submitted(manifest, cluster="near", ago_s=LOST_S + 5)
    assert _state(manifest) == (RunState.FAILED, LOST, False)


@pytest.mark.parametrize(
    ("age_s", "state", "active"), [(10.0, RunState.RUNNING, True), (STALE_S + 10, RunState.FAILED, False)]
)
def test_without_an_answer_heartbeats_alone_decide_and_nothing_is_recorded(
    make_sweep: MakeSweep, slurm: dict[str, JobState], age_s: float, state: RunState, active: bool
) -> None:
    manifest = make_sweep("a")
    slurm[""] = DOWN
    _elsewhere(manifest, age_s=age_s)
    _submitted(manifest, ago_s=1000)
    view = read_states(manifest)[0]
    assert (view.state, view.active, view.resumable) == (state, active, False)
    assert view.unreachable == DOWN.cause and _recorded(manifest) == (RunState.RUNNING, "")
    del slurm[""]
    slurm["5_0"] = JobState(state=RunState.PREEMPTED, cause="by another job")
    assert read_states(manifest)[0].state is (RunState.RUNNING if active else RunState.PREEMPTED)


@pytest.mark.parametrize("first", [RunState.PENDING, RunState.PREEMPTED])
@pytest.mark.parametrize("called_off", [False, True])
def test_without_an_answer_what_waits_stays_as_it_is(
    make_sweep: MakeSweep, slurm: dict[str, JobState], first: RunState, called_off: bool
) -> None:
    manifest = make_sweep("a", "b")
    set_status(manifest.runs[0], first)
    set_status(manifest.runs[1], RunState.DONE)
    _submitted(manifest, ago_s=1000)
    if called_off:
        record_events(manifest, [event("cancelled", "a/seed0", job="5_0")])
    slurm[""] = DOWN
    assert _state(manifest) == (first, "", False)
    views = read_states(manifest)
    assert [view.resumable for view in views] == [False, False] and views[1].unreachable == ""
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(status_view(manifest, views))
    text = console.export_text()
    assert text.count("SLURM's controller does not answer; states from heartbeats alone") == 1


def test_slurm_tells_a_kill_from_a_lack_of_memory(make_sweep: MakeSweep, slurm: dict[str, JobState]) -> None:
    manifest = make_sweep("a")
    killed = "killed by SIGKILL (from outside, or out of memory)"
    set_status(manifest.runs[0], RunState.FAILED, cause=killed)
    _submitted(manifest)
    slurm["5_0"] = JobState(state=RunState.FAILED, cause="the job failed (ended by signal 9)")
    assert _state(manifest) == (RunState.FAILED, killed, False)
    slurm["5_0"] = OUT_OF_MEMORY
    assert _state(manifest) == (RunState.FAILED, "out of memory: SLURM ended the job", False)
    set_status(manifest.runs[0], RunState.FAILED, cause="loss is NaN")
    assert _state(manifest) == (RunState.FAILED, "loss is NaN", False)


def test_a_preempted_run_whose_job_has_gone_waits_for_resume(
    make_sweep: MakeSweep, slurm: dict[str, JobState]
) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.PREEMPTED, cause="SIGTERM at step 4", step=4)
    _submitted(manifest)
    slurm["5_0"] = JobState(state=RunState.FAILED, cause="the job failed (exit code 75)")
    assert _state(manifest) == (RunState.PREEMPTED, "SIGTERM at step 4", False)
    slurm["5_0"] = JobState(state=RunState.CANCELLED, cause="by scancel")
    assert _state(manifest) == (RunState.CANCELLED, "by scancel", False)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (RunState.PENDING, "out of time: the job reached its limit"),
        (RunState.PREEMPTED, "out of time: the job reached its limit; stopped by SIGTERM"),
    ],
)
def test_a_job_that_ran_out_of_time_says_so(
    make_sweep: MakeSweep, slurm: dict[str, JobState], said: RunState, cause: str
) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], said, cause="stopped by SIGTERM" if said is RunState.PREEMPTED else "")
    _submitted(manifest)
    slurm["5_0"] = JobState(state=RunState.FAILED, cause="out of time: the job reached its limit")
    assert _state(manifest) == (RunState.FAILED, cause, False)
    assert _recorded(manifest) == (RunState.FAILED, cause)


def test_a_called_off_run_is_cancelled_once_it_has_stopped(
    make_sweep: MakeSweep, slurm: dict[str, JobState]
) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.PREEMPTED, step=4)
    record_events(manifest, [event("cancelled", "a/seed0", job="5_0", cause="by someone")])
    slurm["5_0"] = JobState(state=RunState.RUNNING, cause="")
    assert _state(manifest) == (RunState.PREEMPTED, "", True)
    del slurm["5_0"]
    assert _state(manifest) == (RunState.CANCELLED, "by someone", False)


def test_a_called_off_run_that_another_sweep_has_taken_up_stays_its(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.PENDING)
    cancelled = event("cancelled", "a/seed0", cause="by someone")
    record_events(manifest, [replace(cancelled, time=cancelled.time - 10)])
    assert _state(manifest)[0] is RunState.PENDING and _recorded(manifest) == (RunState.PENDING, "")
    record_events(manifest, [replace(cancelled, time=cancelled.time + 10)])
    assert _state(manifest) == (RunState.CANCELLED, "by someone", False)


def test_records_of_earlier_versions_say_that_a_command_cancelled(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("a")
    row = {"time": 1.0, "kind": "cancelled", "label": "a/seed0", "job": "", "pid": 1, "host": "h"}
    append_json_lines(manifest.folder / "jobs.jsonl", [row])
    assert _state(manifest) == (RunState.CANCELLED, "by qhk sweep cancel", False)


def test_a_run_may_be_listed_before_the_one_that_it_shares(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("a", "b")
    first, leader = manifest.runs
    follower = replace(first, directory=leader.directory, same_as=leader.label)
    set_status(leader, RunState.PENDING)
    record_events(manifest, [event("submitted", leader.label)])
    lock = launcher_lock(manifest.folder)
    views = read_states(replace(manifest, runs=(follower, leader)))
    lock.release()
    assert [(view.run.label, view.state, view.active) for view in views] == [
        (follower.label, RunState.PENDING, True),
        (leader.label, RunState.PENDING, True),
    ]


def test_the_time_that_is_left(make_sweep: MakeSweep) -> None:
    manifest = make_sweep("a")
    run = manifest.runs[0]
    set_status(run, RunState.RUNNING, step=4, total=10)
    rows = [{"step": step, "section": "train", "time/step_s": float(step)} for step in range(1, 5)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (run.directory / "metrics.jsonl").write_text(text + '{"step": 5, "time/st')
    assert step_times(run.directory / "metrics.jsonl") == [2.0, 3.0, 4.0]
    view = read_states(manifest)[0]
    assert (view.eta_s, view.active, view.resumable) == (6 * 3.0, True, False)


def test_damaged_times_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = ['{"time/step_s": 1.0}', '{"time/step_s": 2.0}', '{"time/step_s" 3}', '{"time/step_s": "x"}']
    file.write_text("\n".join([*lines, '{"time/step_s": null}', '{"time/step_s": 4.0}']) + "\n")
    assert step_times(file) == [2.0, 4.0]


def test_no_record_is_no_estimate(tmp_path: Path) -> None:
    assert step_times(tmp_path / "nothing.jsonl") == []
