"""One process per run on this machine: places, GPUs, failures, Ctrl-C, cancelling."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.settings.sweep import LocalLauncherSettings
from qhk.sweep import local
from qhk.sweep.local import LocalLauncher
from qhk.sweep.manifest import Manifest, SweepRun, event, record_events
from qhk.sweep.states import launcher_lock, read_states
from qhk.tracking.status import RunState, Status
from tests.sweep.builders import LOCAL, MakeSweep, fake_command

Launch = Callable[..., dict[str, str]]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Launches a sweep whose cells do as their modes say: label -> "state: cause" at the end."""

    def run(manifest: Manifest, settings: LocalLauncherSettings = LOCAL, **modes: str) -> dict[str, str]:
        monkeypatch.setattr(local, "run_command", fake_command(modes))
        ended: dict[str, str] = {}

        def note(run: SweepRun, status: Status | None) -> None:
            assert status is not None
            ended[run.label] = f"{status.state.value}: {status.cause}"

        launcher = LocalLauncher(manifest=manifest, settings=settings, started=lambda run: None, ended=note)
        launcher.take(manifest.runs)
        launcher.work()
        return ended

    return run


def test_a_run_that_ends_badly_stops_no_other_and_says_why(make_sweep: MakeSweep, launch: Launch) -> None:
    ended = launch(make_sweep("a", "b", "c", "d"), a="kill", b="refuse", c="fail")
    assert ended == {
        "a/seed0": "failed: killed by SIGKILL (from outside, or out of memory)",
        "b/seed0": "failed: data: nothing there (exit code 2)",
        "c/seed0": "failed: loss is NaN",
        "d/seed0": "done: ",
    }


def _starts(manifest: Manifest) -> list[tuple[float, str]]:
    lines = [(run.directory / "starts").read_text().split(" ") for run in manifest.runs]
    return sorted((float(line[0]), line[1]) for line in lines)


def test_so_many_at_a_time_and_each_with_a_gpu_of_its_own(make_sweep: MakeSweep, launch: Launch) -> None:
    manifest = make_sweep("a", "b", "c", "d")
    launch(manifest, LOCAL.model_copy(update={"jobs": 4, "gpus": [3, 5]}))
    starts = _starts(manifest)
    assert sorted(gpu for _, gpu in starts) == ["3", "3", "5", "5"]
    assert {gpu for _, gpu in starts[:2]} == {"3", "5"}
    assert starts[2][0] - starts[0][0] >= 0.3


def test_more_processes_than_gpus_is_refused(make_sweep: MakeSweep, launch: Launch) -> None:
    with pytest.raises(ValueError, match="processes: 2 needs as many GPUs, there are 1"):
        launch(make_sweep("a"), LOCAL.model_copy(update={"processes": 2, "gpus": [0]}))


def test_the_processes_of_one_run_know_their_ranks_and_end_together(
    make_sweep: MakeSweep, launch: Launch
) -> None:
    manifest = make_sweep("a")
    ended = launch(manifest, LOCAL.model_copy(update={"processes": 2}))
    lines = (manifest.runs[0].directory / "starts").read_text().splitlines()
    assert sorted(line.split(" ")[2] for line in lines) == ["0", "1"]
    assert ended == {"a/seed0": "done: "}
    assert (manifest.runs[0].directory / "console.rank1.log").exists()


def _later(action: Callable[[], None], manifest: Manifest) -> threading.Thread:
    """Acts once the first run is at work."""

    def wait() -> None:
        end = time.monotonic() + 60
        while not (manifest.runs[0].directory / "starts").exists() and time.monotonic() < end:
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launcher_leaves_every_status_right(
    make_sweep: MakeSweep, launch: Launch, number: signal.Signals
) -> None:
    manifest = make_sweep("a", "b", "c")
    thread = _later(lambda: os.kill(os.getpid(), number), manifest)
    with pytest.raises(KeyboardInterrupt):
        launch(manifest, LOCAL.model_copy(update={"jobs": 1}), a="sleep")
    thread.join()
    name = "SIGTERM" if number is signal.SIGTERM else "Ctrl-C"
    assert [(view.state, view.cause) for view in read_states(manifest)] == [
        (RunState.CANCELLED, f"by {name} in the launcher")
    ] * 3
    assert all(view.resumable for view in read_states(manifest))


def test_a_run_called_off_while_it_waits_is_not_started(make_sweep: MakeSweep, launch: Launch) -> None:
    manifest = make_sweep("a", "b")
    record = event("cancelled", "b/seed0", cause="by someone")
    thread = _later(lambda: record_events(manifest, [record]), manifest)
    launch(manifest, LOCAL.model_copy(update={"jobs": 1}))
    thread.join()
    assert [view.state for view in read_states(manifest)] == [RunState.DONE, RunState.CANCELLED]
    assert read_states(manifest)[1].cause == "by someone"
    assert not (manifest.runs[1].directory / "starts").exists()


def test_resume_has_what_is_not_done(make_sweep: MakeSweep, launch: Launch) -> None:
    manifest = make_sweep("a", "b", "c")
    launch(manifest, b="fail")
    missing = [view.run for view in read_states(manifest) if view.resumable]
    assert [run.label for run in missing] == ["b/seed0"]
    assert launch(replace(manifest, runs=tuple(missing))) == {"b/seed0": "done: "}
    assert not any(view.resumable for view in read_states(manifest))


def test_the_launcher_of_a_waiting_run_may_be_gone(make_sweep: MakeSweep, tmp_path: Path) -> None:
    manifest = make_sweep("a")
    for run in manifest.runs:
        local.mark_pending(run)
    record_events(manifest, [event("submitted", "a/seed0", job="")])
    lock = launcher_lock(manifest.folder)
    view = read_states(manifest)[0]
    assert (view.state, view.active) == (RunState.PENDING, True)
    lock.release()
    view = read_states(manifest)[0]
    assert (view.state, view.active, view.cause) == (
        RunState.PENDING,
        False,
        "its launcher has ended; resume starts it",
    )
