"""``qhk sweep`` on a sweep whose runs are a few lines of Python."""

from __future__ import annotations

import pytest

from qhk.config.catalogue import Catalogue
from qhk.files import json_line
from qhk.sweep import local
from qhk.sweep.manifest import Manifest, SweepRun, event, read_manifest, record_events
from qhk.sweep.resume import launcher_of
from qhk.tracking.code import CODE_FILE, run_code
from qhk.tracking.status import STATUS_FILE, RunState, read_status
from tests.conftest import Qhk
from tests.sweep.builders import SLURM, MakeSweep, fake_command, set_status


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ((RunState.DONE, RunState.DONE), 0),
        ((RunState.DONE, RunState.FAILED), 1),
        ((RunState.DONE, RunState.PREEMPTED), 3),
    ],
)
def test_status_returns_the_sweeps_exit_code(
    make_sweep: MakeSweep, qhk: Qhk, states: tuple[RunState, ...], code: int
) -> None:
    manifest = make_sweep("a", "b")
    for run, state in zip(manifest.runs, states, strict=True):
        set_status(run, state, step=4, cause="" if state is RunState.DONE else "something happened")
    found, out, _ = qhk("sweep", "status", "s")
    assert found == code
    assert ("b/seed0" in out and "something happened" in out) == (code != 0)


def test_cancel_then_resume_then_nothing_to_start(
    make_sweep: MakeSweep, qhk: Qhk, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_sweep("a", "b", "c")
    set_status(manifest.runs[0], RunState.DONE)
    for run in manifest.runs[1:]:
        set_status(run, RunState.PENDING)
        record_events(manifest, [event("submitted", run.label, job="")])
    assert qhk("sweep", "cancel", "s", "cell=b")[1] == "sweep s: 1 runs cancelled\n"
    assert qhk("sweep", "status", "s")[0] == 3
    status = read_status(manifest.runs[1].directory / STATUS_FILE)
    assert status is not None and status.state is RunState.CANCELLED
    monkeypatch.setattr(local, "run_command", fake_command({}))
    code, out, err = qhk("sweep", "resume", "s", "only_seed=0")
    assert code == 0 and "3 done" in out
    assert "b/seed0: done" in err and "c/seed0: done" in err and "a/seed0" not in err
    assert "nothing to start" in qhk("sweep", "resume", "s")[1]


def test_logs_are_of_runs_that_failed_or_stopped(make_sweep: MakeSweep, qhk: Qhk) -> None:
    manifest = make_sweep("a", "b")
    set_status(manifest.runs[0], RunState.DONE)
    set_status(manifest.runs[1], RunState.FAILED)
    for run in manifest.runs:
        run.log.write_text(f"first\nlast of {run.cell}\n")
    out = qhk("sweep", "logs", "s", "lines=1")[1]
    assert "last of b" in out and "first" not in out and "last of a" not in out
    assert "last of a" in qhk("sweep", "logs", "s", "cell=a")[1]
    code, _, err = qhk("sweep", "logs", "s", "cell=z")
    assert code == 2 and "cell=z: no such cell; known: a, b" in err


def test_a_job_that_died_before_its_run_points_to_its_own_log(
    make_sweep: MakeSweep, qhk: Qhk, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_sweep("a")
    set_status(manifest.runs[0], RunState.FAILED, cause="the job failed (exit code 3)", slurm_job="5_0")
    log = manifest.folder / "submitit/5_0_0_log.err"
    log.parent.mkdir()
    log.write_text("no such module\n")
    monkeypatch.setenv("COLUMNS", "500")
    assert str(log) in qhk("sweep", "status", "s")[1]
    assert "no such module" in qhk("sweep", "logs", "s")[1]


def test_overrides_of_resume_change_the_sweeps_own_launcher(
    make_sweep: MakeSweep, qhk: Qhk, catalogue: Catalogue
) -> None:
    longer = launcher_of(SLURM, ["hydra.launcher.timeout_min=90"], catalogue)
    assert longer == SLURM.model_copy(update={"timeout_min": 90})
    assert launcher_of(SLURM, ["cell=a"], catalogue) is SLURM
    other = launcher_of(SLURM, ["hydra/launcher=local", "hydra.launcher.jobs=2"], catalogue)
    assert other.form == "local" and other.jobs == 2
    make_sweep("a")
    code, _, err = qhk("sweep", "resume", "s", "hydra.launcher.timeout_min=90")
    assert code == 2 and err.count("\n") == 1 and "timeout_min" in err


def test_resume_with_current_code_freezes_it_for_the_started_runs_alone(
    make_sweep: MakeSweep, qhk: Qhk, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_sweep("a", "b")
    set_status(manifest.runs[0], RunState.DONE)
    set_status(manifest.runs[1], RunState.FAILED)
    started: list[SweepRun] = []

    def command(manifest: Manifest, run: SweepRun) -> list[str]:
        started.append(run)
        return fake_command({})(manifest, run)

    monkeypatch.setattr(local, "run_command", command)
    assert qhk("sweep", "resume", "s", "code=current")[0] == 0
    current = run_code(manifest.settings(manifest.runs[1]))
    assert [(run.label, run.code) for run in started] == [("b/seed0", current)]
    after = read_manifest(manifest.folder)
    assert [run.code for run in after.runs] == ["any", current]
    assert (after.code_folder(after.runs[1]) / "qhk/cli/cell.py").is_file()


def test_status_names_runs_and_cells_of_different_code(make_sweep: MakeSweep, qhk: Qhk) -> None:
    manifest = make_sweep("a", "b", "c")
    for run in manifest.runs:
        set_status(run, RunState.DONE)

    def computed(number: int, *parts: tuple[int, str]) -> None:
        rows = [json_line({"after_step": step, "code": code * 64}) for step, code in parts]
        (manifest.runs[number].directory / CODE_FILE).write_text("".join(rows))

    for number in range(3):
        computed(number, (-1, "1"))
    assert "code" not in qhk("sweep", "status", "s")[1]
    computed(1, (-1, "1"), (4, "2"))
    out = qhk("sweep", "status", "s")[1]
    assert f"b/seed0 is of more than one code: {'1' * 12}, behind step 4 {'2' * 12}" in out
    assert f"ended with different code: {'1' * 12}: a/seed0, c/seed0; {'2' * 12}: b/seed0" in out
