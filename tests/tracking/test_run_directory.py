"""Run directories: fresh, resumed, finished, refused, archived, locked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from qhk.errors import UserError
from qhk.settings.identity import run_id
from qhk.settings.parse import plain_settings, read_settings
from qhk.settings.paths import PathsSettings
from qhk.tracking import run_directory
from qhk.tracking.code import code_text
from qhk.tracking.provenance import Provenance, read_provenance
from qhk.tracking.run_directory import (
    Opened,
    RunDirectory,
    join_run_directory,
    known_run_id,
    leave_failure,
    open_run_directory,
    run_path,
)
from qhk.tracking.status import RunState, read_status
from tests.tracking.test_provenance import made


def opened(outputs: Path, **changes: Any) -> RunDirectory:
    arguments: dict[str, Any] = {
        "study": "first",
        "name": "q_hawkeye",
        "seed": 1,
        "run_id": "abc",
        "config": {"seed": 1, "model": {"form": "tiny"}},
        "provenance": made(),
        "fresh": False,
    }
    return open_run_directory(outputs, **{**arguments, **changes})


def left(outputs: Path, state: RunState, **changes: Any) -> Path:
    """A directory that an earlier process left in ``state`` at step 7."""
    with opened(outputs, **changes) as run:
        run.report(step=7)
        run.end(state, cause="")
        run.metrics.write_text("{}\n")
    return run.path


def test_fresh_directory_says_whose_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert run.opened is Opened.FRESH and run.previous is None and run.code_parts == []
        assert run.path == tmp_path / "first" / "q_hawkeye" / "seed1"
        assert (run.path / "run_id").read_text() == "abc\n"
        assert yaml.safe_load((run.path / "config.yaml").read_text()) == {
            "seed": 1,
            "model": {"form": "tiny"},
        }
        assert read_provenance(run.path / "provenance.json") == made()
        status = read_status(run.path / "status.json")
        assert status is not None and (status.state, status.step) == (RunState.RUNNING, 0)


@pytest.mark.parametrize("state", [state for state in RunState if state is not RunState.DONE])
def test_unfinished_run_resumes(tmp_path: Path, state: RunState) -> None:
    left(tmp_path, state)
    with opened(tmp_path) as run:
        assert run.opened is Opened.RESUME
        assert run.previous is not None and run.previous.state is state
        status = read_status(run.path / "status.json")
        assert status is not None and (status.state, status.step) == (RunState.RUNNING, 7)
        assert run.metrics.exists()


def test_finished_run_is_recognised_and_not_touched(tmp_path: Path) -> None:
    path = left(tmp_path, RunState.DONE)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with opened(tmp_path, provenance=made(threads=9)) as run:
        assert run.opened is Opened.FINISHED
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


CHANGED_CODE, CHANGED_DATA = made(code_digest="b" * 64), made(data_fingerprints={"koniq": "9", "spaq": "2"})


@pytest.mark.parametrize(("provenance", "what"), [(CHANGED_CODE, "code"), (CHANGED_DATA, "data koniq")])
def test_finished_run_of_other_code_or_data_is_refused(
    tmp_path: Path, provenance: Provenance, what: str
) -> None:
    path = left(tmp_path, RunState.DONE)
    shows = (
        f"qhk report {path} shows it; to train anew, choose another name= or fresh=true, which archives it"
    )
    with pytest.raises(ValueError, match=f"seed1 is finished, but {what}.* changed since: {shows}"):
        opened(tmp_path, provenance=provenance)


def test_resume_takes_changed_code_and_says_so_but_not_changed_data(tmp_path: Path) -> None:
    left(tmp_path, RunState.PREEMPTED)
    with opened(tmp_path, provenance=CHANGED_CODE) as run:
        assert run.note_code(step=3) == run.code_parts
        assert code_text(run.code_parts) == "aaaaaaaaaaaa, behind step 3 bbbbbbbbbbbb"
    with pytest.raises(ValueError, match="is unfinished, but data koniq changed"):
        opened(tmp_path, provenance=made(code_digest="b" * 64, data_fingerprints={"koniq": "9", "spaq": "2"}))


def test_other_run_id_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = left(tmp_path, RunState.RUNNING)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(ValueError) as caught:
        opened(tmp_path, run_id="xyz")
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(path), "abc", "xyz", "name=", "fresh=true"):
        assert part in message
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_folder_of_somebody_else_is_refused_an_empty_one_is_fresh(tmp_path: Path) -> None:
    path = run_path(tmp_path, study="first", name="q_hawkeye", seed=1)
    path.mkdir(parents=True)
    with opened(tmp_path) as run:
        assert run.opened is Opened.FRESH
    (path / "run_id").unlink()
    with pytest.raises(ValueError, match="holds files but no run_id"):
        opened(tmp_path)


def test_fresh_archives_the_old_directory(tmp_path: Path) -> None:
    path = left(tmp_path, RunState.DONE)
    for number in (1, 2):
        with opened(tmp_path, fresh=True, run_id=f"new{number}") as run:
            assert run.opened is Opened.FRESH
            assert not run.metrics.exists()
    ids = [(path.parent / f"seed1.replaced-{number}" / "run_id").read_text() for number in (1, 2)]
    assert ids == ["abc\n", "new1\n"]
    assert (path.parent / "seed1.replaced-1" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_name_must_be_one_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name="):
        opened(tmp_path, name=name)


HOLDER = """
import sys, time
from pathlib import Path
from qhk.tracking.lock import RunLock
lock = RunLock(Path(sys.argv[1]), directory=Path("run"))
print("held", flush=True)
time.sleep(60)
"""


def test_second_launch_is_refused_until_the_first_process_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "first" / "q_hawkeye" / ".seed1.lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"seed1 is in use by process {holder.pid} on ") as caught:
            opened(tmp_path)
        assert "\n" not in str(caught.value)
        assert not lock.with_name("seed1").exists()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
    opened(tmp_path).close()


FORKING = """
import os, sys, time
from pathlib import Path
from qhk.tracking.lock import RunLock
lock = RunLock(Path(sys.argv[1]), directory=Path("run"))
if os.fork() == 0:  # it speaks once it is up: before that its copy of the lock may still be open
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_worker_that_outlives_a_killed_run_holds_nothing(tmp_path: Path) -> None:
    """The lock is the run's own: not its forked children's, and no stale file keeps it."""
    lock = tmp_path / "first" / "q_hawkeye" / ".seed1.lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", FORKING, str(lock)], stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        try:
            with pytest.raises(ValueError, match=f"is in use by process {holder.pid} on "):
                opened(tmp_path)
            holder.kill()
            holder.wait()
            os.kill(worker, 0)
            assert lock.read_text().startswith(f"process {holder.pid} on ")
            opened(tmp_path).close()
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_start_that_was_killed_at_once_is_fresh(tmp_path: Path) -> None:
    path = run_path(tmp_path, study="first", name="q_hawkeye", seed=1)
    path.mkdir(parents=True)
    (path / ".run_id.4711.tmp").write_text("ab")
    with opened(tmp_path) as run:
        assert run.opened is Opened.FRESH
        assert not (path / ".run_id.4711.tmp").exists()


def test_a_resume_clears_half_written_files_and_keeps_the_wandb_id(tmp_path: Path) -> None:
    path = left(tmp_path, RunState.FAILED)
    wandb_id = (path / "wandb_id").read_text()
    (path / ".status.json.4711.tmp").write_text("{")
    with opened(tmp_path) as run:
        assert run.wandb_id == wandb_id.strip() and run.wandb_id.startswith("abc-")
        assert not list(path.glob(".*"))


def test_another_process_can_leave_word_of_its_failure(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert run.noted_failure() == ""
        other = join_run_directory(
            tmp_path, study="first", name="q_hawkeye", seed=1, run_id="abc", opened=run.opened
        )
        other.note_failure("process 1: loss\nis nan", ValueError("loss is nan"))
        assert run.noted_failure() == "process 1: loss is nan"
        assert "ValueError: loss is nan" in run.log.read_text()
    with opened(tmp_path) as run:
        assert run.noted_failure() == ""


FAILURE: dict[str, Any] = {
    "study": "first",
    "name": "q_hawkeye",
    "seed": 1,
    "run_id": "abc",
    "cause": "no data",
    "error": ValueError("no data"),
}


def test_a_failure_before_the_directory_was_open_is_left_there(tmp_path: Path) -> None:
    leave_failure(tmp_path, **FAILURE)
    path = run_path(tmp_path, study="first", name="q_hawkeye", seed=1)
    status = read_status(path / "status.json")
    assert status is not None and (status.state, status.cause) == (RunState.FAILED, "no data")
    with opened(tmp_path) as run:
        assert run.opened is Opened.RESUME
        leave_failure(tmp_path, **FAILURE)
        status = read_status(path / "status.json")
        assert status is not None and status.state is RunState.RUNNING


@pytest.mark.parametrize(("state", "run_id"), [(RunState.DONE, "abc"), (RunState.RUNNING, "xyz")])
def test_no_failure_is_left_in_a_finished_or_foreign_directory(
    tmp_path: Path, state: RunState, run_id: str
) -> None:
    path = left(tmp_path, state)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    leave_failure(tmp_path, **{**FAILURE, "run_id": run_id})
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_lock_is_given_back_by_close_and_by_a_refusal(tmp_path: Path) -> None:
    run = opened(tmp_path)
    with pytest.raises(ValueError, match="is in use by process"):
        opened(tmp_path)
    run.close()
    run.close()
    with pytest.raises(ValueError, match="belongs to run id"):
        opened(tmp_path, run_id="xyz")
    opened(tmp_path).close()


def test_a_run_of_an_earlier_version_keeps_its_id_where_it_is_the_same_run(tmp_path: Path) -> None:
    stored = Path(__file__).parents[1] / "stored/v1/outputs/stored/g4/seed0"
    for name in ("run_id", "config.yaml"):
        (tmp_path / name).write_text((stored / name).read_text().replace("@ROOT@", "."))
    begun = (tmp_path / "run_id").read_text().strip()
    settings = read_settings(tmp_path / "config.yaml")
    other = settings.model_copy(update={"seed": 7})
    assert begun != run_id(settings) and known_run_id(tmp_path, settings) == begun
    assert known_run_id(tmp_path, other) == run_id(other)
    (tmp_path / "run_id").unlink()
    assert known_run_id(tmp_path, settings) == run_id(settings), "it holds no run"
    (tmp_path / "run_id").write_text(begun)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain_settings(settings)))
    assert known_run_id(tmp_path, settings) == run_id(settings), "that of another run of this version"
    assert known_run_id(tmp_path / "nowhere", settings) == run_id(settings)


def test_a_cache_that_is_there_need_not_be_writable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_directory, "unwritable", lambda path, *names: "Read-only file system")
    there = PathsSettings(datasets="data", outputs="out", cache=str(tmp_path))
    run_directory.refuse_cache(there)
    with pytest.raises(
        UserError, match=r"new: cannot be written \(Read-only file system\): change paths\.cache"
    ):
        run_directory.refuse_cache(there.model_copy(update={"cache": str(tmp_path / "new")}))
