"""What happens to single jobs on a real SLURM: their runs are a few lines of Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.sweep import scheduler, states
from qhk.sweep import slurm as launcher
from qhk.sweep.manifest import Manifest, SweepRun
from qhk.sweep.states import RunView, read_states
from qhk.sweep.table import exit_code
from qhk.tracking.status import RunState
from tests.slurm.cluster import Cluster
from tests.sweep.builders import SLURM, MakeSweep

pytestmark = pytest.mark.slurm

STUB = """
import os, pathlib, signal, sys, time
from qhk.tracking.status import RunState, current_status, read_status, write_status
directory, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
path = directory / "status.json"
def say(state, cause=""):
    write_status(path, current_status(state=state, step=3, cause=cause))
def stop(number, frame):
    say(RunState.PREEMPTED, f"stopped by {signal.Signals(number).name}")
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, stop)
before = read_status(path)
with (directory / "starts").open("a") as file:
    file.write(f"{before.state} {os.environ.get('SLURM_RESTART_COUNT', 0)} {os.environ.get('FROM_SETUP')} "
               f"{os.environ.get('RANK')}/{os.environ.get('WORLD_SIZE')}\\n")
say(RunState.RUNNING)
if mode == "once" and not int(os.environ.get("SLURM_RESTART_COUNT", 0)) or mode == "sleep":
    time.sleep(120)
time.sleep(0.2)
say(RunState.DONE)
"""


Submit = Callable[..., Manifest]


@pytest.fixture
def submit(slurm: Cluster, make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Submits a sweep whose cells do as their modes say."""

    def run(modes: dict[str, str], **changes: object) -> Manifest:
        def command(manifest: Manifest, run: SweepRun) -> list[str]:
            return [sys.executable, "-c", STUB, str(run.directory), modes[run.cell]]

        monkeypatch.setattr(launcher, "run_command", command)
        manifest = make_sweep(*modes)
        launcher.submit(manifest, SLURM.model_copy(update=changes), manifest.runs)
        return manifest

    return run


def until(
    manifest: Manifest, cell: str, *states: RunState, seconds: float = 90, active: bool | None = None
) -> RunView:
    """The cell's view once it is in one of the states (and active, or not, where that is said)."""
    end = time.monotonic() + seconds
    while True:
        view = next(view for view in read_states(manifest) if view.run.cell == cell)
        if view.state in states and active in (None, view.active):
            return view
        assert time.monotonic() < end, f"{view.run.label} is {view.state} ({view.cause}), not {states}"
        time.sleep(0.5)


def starts(manifest: Manifest, cell: str) -> list[str]:
    """What each start of the cell's run found."""
    run = next(run for run in manifest.runs if run.cell == cell)
    return (run.directory / "starts").read_text().splitlines()


def kill_without_a_word(view: RunView) -> None:
    """As a lost machine does: neither the run nor the task around it can say anything any more."""
    assert view.status is not None
    stat = Path(f"/proc/{view.status.pid}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    os.kill(view.status.pid, signal.SIGKILL)


def test_signalled_killed_and_cancelled_jobs(slurm: Cluster, submit: Submit) -> None:
    manifest = submit({"plain": "done", "signalled": "once", "killed": "sleep", "called_off": "sleep"})
    signalled = until(manifest, "signalled", RunState.RUNNING)
    slurm.client("scancel", "--signal=USR2", signalled.job)
    kill_without_a_word(until(manifest, "killed", RunState.RUNNING))
    slurm.client("scancel", until(manifest, "called_off", RunState.RUNNING).job)
    view = until(manifest, "signalled", RunState.PREEMPTED)
    assert view.cause.startswith("stopped by SIGUSR2")
    assert until(manifest, "plain", RunState.DONE).cause == ""
    assert "signal 9" in until(manifest, "killed", RunState.FAILED).cause
    stopped = until(manifest, "called_off", RunState.CANCELLED, active=False)
    assert stopped.resumable
    until(manifest, "signalled", RunState.DONE)
    assert [line.split()[1] for line in starts(manifest, "signalled")] == ["0", "1"]
    assert all("yes" in line for line in starts(manifest, "plain"))
    assert exit_code(manifest, read_states(manifest)) == 1


def test_a_job_of_more_right_takes_the_place_and_the_run_goes_on(slurm: Cluster, submit: Submit) -> None:
    manifest = submit({"a": "once"}, cpus_per_task=4)
    until(manifest, "a", RunState.RUNNING)
    urgent = subprocess.Popen(["srun", "-p", "urgent", "-c", "4", "sleep", "3"])
    assert until(manifest, "a", RunState.PREEMPTED).cause.startswith("stopped by SIG")
    assert urgent.wait(timeout=90) == 0
    until(manifest, "a", RunState.DONE)
    assert len(starts(manifest, "a")) == 2


def test_so_many_at_a_time_and_a_waiting_one_may_be_called_off(slurm: Cluster, submit: Submit) -> None:
    manifest = submit({"a": "sleep", "b": "sleep"}, array_parallelism=1)
    first = until(manifest, "a", RunState.RUNNING)
    second = until(manifest, "b", RunState.PENDING, active=True)
    assert "in the queue" in second.cause
    slurm.client("scancel", second.job)
    assert until(manifest, "b", RunState.CANCELLED).cause == "by scancel"
    slurm.client("scancel", first.job)
    until(manifest, "a", RunState.CANCELLED)


def test_every_task_is_a_process_that_knows_its_rank(slurm: Cluster, submit: Submit) -> None:
    manifest = submit({"a": "done"}, tasks_per_node=2)
    until(manifest, "a", RunState.DONE)
    assert sorted(line.split()[3] for line in starts(manifest, "a")) == ["0/2", "1/2"]


def test_a_refused_submission_is_one_line(submit: Submit) -> None:
    with pytest.raises(ValueError, match="sbatch refused: .*partition"):
        submit({"a": "done"}, partition="nowhere")


def test_the_folder_of_the_sweep_is_all_one_needs(slurm: Cluster, submit: Submit, tmp_path: Path) -> None:
    """As after a reboot, or from another machine: another process, and the queue has forgotten."""
    manifest = submit({"a": "done"})
    until(manifest, "a", RunState.DONE)
    words = [sys.executable, "-m", "qhk.cli.main", "sweep", "status", str(manifest.folder)]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False)
    assert "1 done" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_lost_node_is_named_and_what_may_be_queued_again_goes_on(slurm: Cluster, submit: Submit) -> None:
    node = slurm.nodes[1]
    manifest = submit({"again": "once", "lost": "sleep"}, partition="pair", nodelist=node)
    views = [until(manifest, cell, RunState.RUNNING) for cell in ("again", "lost")]
    slurm.client("scontrol", "update", f"job={views[1].job}", "requeue=0")
    slurm.send(f"slurmd.{node}", signal.SIGSTOP)
    try:
        slurm.client("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        for view in views:
            kill_without_a_word(view)
        view = until(manifest, "lost", RunState.FAILED)
        assert view.cause == "node lost" and view.resumable
        view = until(manifest, "again", RunState.PENDING, active=True)
        assert view.cause.startswith("in the queue (")
    finally:
        slurm.send(f"slurmd.{node}", signal.SIGCONT)
        slurm.client("scontrol", "update", f"nodename={node}", "state=resume")
    until(manifest, "again", RunState.DONE)
    assert [line.split()[1] for line in starts(manifest, "again")] == ["0", "1"]


@pytest.mark.slow
def test_a_job_at_its_limit_goes_on_until_it_is_there_once_too_often(slurm: Cluster, submit: Submit) -> None:
    manifest = submit({"again": "once", "endless": "sleep"}, timeout_min=1, max_num_timeout=1)
    assert until(manifest, "again", RunState.PREEMPTED, seconds=120).cause.startswith("stopped by SIGUSR2")
    until(manifest, "again", RunState.DONE)
    view = until(manifest, "endless", RunState.FAILED, seconds=180)
    assert view.cause == "out of time: the job reached its limit once too often; stopped by SIGUSR2"
    assert view.resumable and len(starts(manifest, "endless")) == 2


@pytest.mark.slow
def test_a_silent_controller_and_one_that_has_lost_its_jobs(
    slurm: Cluster, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as without accounting: a controller that starts anew may call its old jobs cancelled in the accounts
    monkeypatch.setattr(scheduler, "_from_accounts", lambda wanted: {})
    manifest = submit({"runs": "sleep", "waits": "sleep"}, array_parallelism=1)
    until(manifest, "runs", RunState.RUNNING)
    until(manifest, "waits", RunState.PENDING, active=True)
    slurm.stop_controller()
    try:
        runs, waits = read_states(manifest)
        assert (runs.state, runs.active) == (RunState.RUNNING, True)
        assert (waits.state, waits.active, waits.resumable) == (RunState.PENDING, False, False)
        assert runs.unreachable == waits.unreachable == "SLURM's controller does not answer"
    finally:
        slurm.start_controller(forgetful=True)
    view = until(manifest, "waits", RunState.PENDING, active=True)
    assert view.cause == f"SLURM does not show job {view.job} yet"
    monkeypatch.setattr(states, "LOST_S", 0.0)
    view = until(manifest, "waits", RunState.FAILED)
    assert view.cause == states.LOST and view.resumable
    os.kill(until(manifest, "runs", RunState.RUNNING, RunState.PREEMPTED, RunState.FAILED).status.pid, 9)
