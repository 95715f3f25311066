"""What is started: by one command at a time, nothing that is active already or may be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.cli.main import main
from qhk.settings.sweep import LauncherSettings
from qhk.sweep import commands, launch, local, states
from qhk.sweep.manifest import (
    Manifest,
    SweepRun,
    event,
    last_events,
    read_manifest,
    record_events,
    write_manifest,
)
from qhk.sweep.process import mark_pending
from qhk.sweep.scheduler import SlurmAnswer
from qhk.sweep.states import launcher_lock, read_states
from qhk.tracking.lock import RunLock, lock_path
from qhk.tracking.status import JobState, RunState
from tests.conftest import Qhk
from tests.sweep.builders import SLURM, MakeSweep, fake_command, set_status

QUEUED = JobState(state=RunState.PENDING, cause="in the queue (Priority)")
NO_ANSWER = "SLURM's controller does not answer"


def on_slurm(manifest: Manifest) -> Manifest:
    changed = replace(manifest, launcher=SLURM)
    write_manifest(changed)
    return changed


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> dict[str, JobState]:
    """The queue of a SLURM; "" in it makes its controller silent."""
    jobs: dict[str, JobState] = {}

    def ask(wanted: Sequence[str]) -> SlurmAnswer:
        if "" in jobs:
            return SlurmAnswer(endings={}, unreachable=NO_ANSWER)
        return SlurmAnswer(endings={job: jobs[job] for job in wanted if job in jobs}, unreachable="")

    monkeypatch.setattr(states, "ask_slurm", ask)
    return jobs


Submit = Callable[[Manifest, LauncherSettings, Sequence[SweepRun]], list[str]]


@pytest.fixture
def submitted(
    monkeypatch: pytest.MonkeyPatch, queue: dict[str, JobState]
) -> Callable[[Callable[[], None]], list[str]]:
    """The labels that were submitted, in their order; what is given is done in the middle of it."""

    def prepare(meanwhile: Callable[[], None]) -> list[str]:
        labels: list[str] = []

        def submit(manifest: Manifest, launcher: LauncherSettings, runs: Sequence[SweepRun]) -> list[str]:
            meanwhile()
            ids = []
            for run in runs:
                mark_pending(run)
                labels.append(run.label)
                ids.append(f"{len(labels)}")
                queue[ids[-1]] = QUEUED
            pairs = zip(runs, ids, strict=True)
            record_events(manifest, [event("submitted", run.label, job=job) for run, job in pairs])
            return ids

        monkeypatch.setattr(launch, "_slurm_submit", lambda: submit)
        return labels

    return prepare


def test_two_commands_at_once_submit_a_run_once(
    make_sweep: MakeSweep, qhk: Qhk, submitted: Callable[[Callable[[], None]], list[str]]
) -> None:
    manifest = on_slurm(make_sweep("a", "b"))
    others: list[tuple[int, str, str]] = []

    def meanwhile() -> None:
        if len(others) < 2:
            others.append((0, "", ""))
            others[:] = [qhk("sweep", "resume", "s"), qhk("sweep", "cancel", "s")]

    labels = submitted(meanwhile)
    assert qhk("sweep", "resume", "s")[0] == 0
    assert labels == ["a/seed0", "b/seed0"]
    for code, _, err in others:
        assert code == 2 and f"s is in use by process {os.getpid()} on " in err and "try again" in err
    assert "nothing to start" in qhk("sweep", "resume", "s")[1]
    assert labels == ["a/seed0", "b/seed0"]
    assert {last.job for last in last_events(manifest).values()} == {"1", "2"}


def test_a_run_whose_job_slurm_cannot_be_asked_about_is_not_started(
    make_sweep: MakeSweep,
    qhk: Qhk,
    queue: dict[str, JobState],
    submitted: Callable[[Callable[[], None]], list[str]],
) -> None:
    manifest = on_slurm(make_sweep("a", "b"))
    for run in manifest.runs:
        set_status(run, RunState.PENDING)
    record_events(manifest, [event("submitted", run.label, job="7") for run in manifest.runs])
    labels = submitted(lambda: None)
    queue[""] = QUEUED
    code, _, err = qhk("sweep", "resume", "s")
    line = f"{NO_ANSWER}, so whether the jobs of 2 runs of sweep s still wait is not known"
    assert (code, labels) == (2, []) and line in err
    set_status(manifest.runs[1], RunState.FAILED)
    code, _, err = qhk("sweep", "resume", "s")
    assert (code, labels) == (0, ["b/seed0"]) and line.replace("2 runs", "1 runs") in err


def test_a_second_launch_leaves_what_waits_as_it_was_submitted(
    qhk: Qhk, submitted: Callable[[Callable[[], None]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = submitted(lambda: None)
    words = ["train", "sweep=modules", "study=again", "seed=0", "hydra/launcher=slurm"]
    assert qhk(*words)[0] == 0
    first, manifest = len(labels), read_manifest(Path("outputs/sweeps/again"))
    frozen = {run.label: manifest.config(run).read_text() for run in manifest.runs}
    shared = launch.share_plan
    monkeypatch.setattr(
        launch, "share_plan", lambda *given: [replace(run, code="0" * 64) for run in shared(*given)]
    )
    code, out, err = qhk(*words, "loading.workers=3")
    assert code == 3 and "nothing to start" in out and len(labels) == first
    assert "active runs keep their settings and code" in err
    again = read_manifest(Path("outputs/sweeps/again"))
    assert again.runs == manifest.runs
    assert {run.label: again.config(run).read_text() for run in again.runs} == frozen


def test_a_shared_run_is_cancelled_by_the_sweep_that_submitted_it(
    make_sweep: MakeSweep, qhk: Qhk, queue: dict[str, JobState], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = on_slurm(make_sweep("a"))
    shared = replace(manifest, runs=(replace(manifest.runs[0], same_as="other/a/seed0"),))
    write_manifest(shared)
    set_status(shared.runs[0], RunState.PENDING, slurm_job="9")
    queue["9"] = QUEUED
    cancelled: list[str] = []
    monkeypatch.setattr(commands, "_scancel", cancelled.extend)
    code, _, err = qhk("sweep", "cancel", "s")
    assert (code, cancelled) == (2, []) and "a/seed0: is other/a/seed0, started by another sweep" in err
    record_events(shared, [event("submitted", "a/seed0", job="9")])
    assert qhk("sweep", "cancel", "s")[:2] == (0, "sweep s: 1 runs cancelled\n")
    assert cancelled == ["9"]


def test_a_second_launcher_here_is_refused(make_sweep: MakeSweep, qhk: Qhk) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.FAILED)
    lock = launcher_lock(manifest.folder)
    code, _, err = qhk("sweep", "resume", "s")
    lock.release()
    assert code == 2 and "its launcher is at work" in err


WORDS = (
    "train", "sweep=modules", "study=fresh", "scale=miniature", "seed=0",
    "~sweep.cells.full", "~sweep.cells.without_perception", "~sweep.cells.without_original_entropy",
    "~sweep.cells.without_degraded_entropy",
)  # fmt: skip
CELLS = ("without_uncertainty", "grpo_baseline")


def test_a_starting_launcher_waits_for_a_reader_of_the_states(
    make_sweep: MakeSweep, qhk: Qhk, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_sweep("a")
    monkeypatch.setattr(local, "run_command", fake_command({}))
    set_status(manifest.runs[0], RunState.FAILED)
    threading.Timer(1.0, launcher_lock(manifest.folder).release).start()
    code, out, err = qhk("sweep", "resume", "s")
    assert (code, "1 done" in out) == (0, True), err


def test_fresh_archives_what_has_ended_and_refuses_what_is_active(
    qhk: Qhk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: dict[str, JobState]
) -> None:
    monkeypatch.setattr(local, "run_command", fake_command({}))
    assert qhk(*WORDS)[0] == 0
    folders = [tmp_path / "outputs" / "fresh" / cell / "seed0" for cell in CELLS]
    busy = RunLock(lock_path(folders[1]), directory=folders[1])
    code, _, err = qhk(*WORDS, "fresh=true")
    busy.release()
    assert code == 2 and f"grpo_baseline/seed0 is in use by process {os.getpid()}" in err
    assert "fresh=true would move it" in err
    manifest = fresh_sweep(tmp_path)
    queue["7_1"] = QUEUED
    mark_pending(manifest.runs[1])
    set_status(manifest.runs[1], RunState.PENDING)
    record_events(manifest, [event("submitted", manifest.runs[1].label, job="7_1")])
    code, _, err = qhk(*WORDS, "fresh=true")
    assert code == 2
    assert "fresh=true: grpo_baseline/seed0 is pending, job 7_1; wait for them, or qhk sweep cancel" in err
    assert [len(list(folder.parent.glob("seed0*"))) for folder in folders] == [1, 1]
    del queue["7_1"]
    set_status(manifest.runs[1], RunState.DONE)
    write_manifest(replace(manifest, folder=manifest.folder.with_name("other"), runs=manifest.runs[1:]))
    code, out, err = qhk(*WORDS, "fresh=true")
    assert code == 0 and "2 done" in out
    shared = "fresh=true archived fresh/grpo_baseline/seed0, which sweep other shares"
    assert [line for line in err.splitlines() if "shares" in line] == [f"note: {shared}"]
    assert [len(list(folder.parent.glob("seed0*"))) for folder in folders] == [2, 2]
    assert {last.job for last in last_events(manifest).values()} == {""}


def fresh_sweep(root: Path) -> Manifest:
    return read_manifest(root / "outputs" / "sweeps" / "fresh")


SLEEPER = """
import sys, time
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from qhk.tracking.status import RunState, current_status, write_status
write_status(Path(sys.argv[1]), current_status(state=RunState.RUNNING, step=3, cause=""))
print("up", flush=True)
time.sleep(60)
"""


def test_cancel_ends_a_run_here_and_names_one_on_another_machine(make_sweep: MakeSweep, qhk: Qhk) -> None:
    manifest = make_sweep("here", "there")
    mark_pending(manifest.runs[0])
    record_events(manifest, [event("submitted", run.label) for run in manifest.runs])
    words = [
        sys.executable,
        "-c",
        SLEEPER,
        str(manifest.runs[0].directory / "status.json"),
        ":".join(sys.path),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        set_status(manifest.runs[1], RunState.RUNNING, machine="other", host="node7", pid=4321)
        code, out, err = qhk("sweep", "cancel", "s")
        assert process.wait(timeout=30) == -signal.SIGTERM
    assert (code, out) == (1, "sweep s: 1 runs cancelled\n")
    assert err == (
        "qhk: there/seed0 runs on node7 (process 4321), which this machine does not reach, "
        "and no launcher is left: there, kill 4321\n"
    )
    assert [last.kind for last in last_events(manifest).values()] == ["cancelled", "submitted"]


def test_a_launcher_on_another_machine_stops_its_cancelled_run(
    make_sweep: MakeSweep, qhk: Qhk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher looks at the sweep's record, whoever writes there: its own machine's or another."""
    manifest = make_sweep("a", "b")
    monkeypatch.setattr(local, "run_command", fake_command({"a": "sleep"}))
    lines: list[str] = []

    def cancel() -> None:
        end = time.monotonic() + 60
        while read_states(manifest)[0].state is not RunState.RUNNING and time.monotonic() < end:
            time.sleep(0.05)
        monkeypatch.setattr("qhk.sweep.commands.writer_alive", lambda status: None)
        lines.append(str(main(["sweep", "cancel", "s", "cell=a"])))

    thread = threading.Thread(target=cancel)
    thread.start()
    began = time.monotonic()
    code, out, _ = qhk("sweep", "resume", "s", "hydra/launcher=local", "hydra.launcher.jobs=2")
    thread.join()
    assert lines == ["0"] and time.monotonic() - began < 50
    assert code == 3 and "1 cancelled" in out and "1 done" in out
    assert "its launcher there stops it" in out
    assert "a/seed0 cancelled: by qhk sweep cancel" in out
