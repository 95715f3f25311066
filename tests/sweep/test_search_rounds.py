"""Searches from the command line, round by round: runs are a few lines of Python, everything else is real."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.settings.sweep import SlurmLauncherSettings
from qhk.sweep import launch, local
from qhk.sweep.manifest import Manifest, SweepRun, event, read_manifest, record_events, write_manifest
from qhk.sweep.search import draw_round, read_trials
from qhk.tracking.status import RunState
from tests.conftest import Qhk
from tests.sweep.builders import set_status

FAKE_RUN = """
import json, pathlib, sys, time
from qhk.tracking.status import RunState, current_status, write_status
directory, reached = pathlib.Path(sys.argv[1]), float(sys.argv[2])
rows = [{"step": step, "section": "validation", "validation/srcc": reached - step} for step in (0, 1)]
(directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
write_status(directory / "status.json", current_status(state=RunState.DONE, step=1, cause=""))
"""


def lr(run: SweepRun) -> float:
    return next(float(word.partition("=")[2]) for word in run.changes if word.startswith("optimizer.lr="))


def reached(run: SweepRun) -> float:
    """Best at a learning rate of 3e-5."""
    return -abs(math.log10(lr(run) / 3e-5))


def words(method: str, *, trials: int, parallel: int) -> list[str]:
    return [
        f"sweep={method}",
        "study=hunt",
        f"sweep.search.trials={trials}",
        f"sweep.search.parallel={parallel}",
    ]


@pytest.fixture
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run ends at once, with a validation result that its learning rate decides."""
    monkeypatch.setattr(
        local,
        "run_command",
        lambda manifest, run: [sys.executable, "-c", FAKE_RUN, str(run.directory), str(reached(run))],
    )


@pytest.mark.parametrize(
    ("method", "trials", "parallel"),
    [("random", 3, 2), pytest.param("bayesian", 11, 10, marks=pytest.mark.slow)],
)
def test_two_rounds_on_this_machine(
    qhk: Qhk, fake_runs: None, tmp_path: Path, method: str, trials: int, parallel: int
) -> None:
    asked = words(method, trials=trials, parallel=parallel)
    code, out, err = qhk("train", *asked, "hydra.launcher.jobs=2")
    assert code == 0, out + err
    manifest = read_manifest(tmp_path / "outputs/sweeps/hunt")
    assert manifest.search is not None
    assert manifest.cells == [f"trial_{number:03d}" for number in range(trials)]
    told = read_trials(manifest.search, manifest.folder)
    assert [trial.reached for trial in told] == [pytest.approx(reached(run)) for run in manifest.runs], (
        "the best of a run's validation rows"
    )
    second = draw_round(manifest.search, told[:parallel])
    assert [trial.values for trial in second] == [trial.values for trial in told[parallel:]]
    if method == "bayesian":
        untold = [replace(trial, reached=0.0) for trial in told[:parallel]]
        assert draw_round(manifest.search, untold) != second, "it was drawn from what the first round reached"
    assert f"search: {parallel} of {trials} trials drawn" in out
    again = qhk("train", *asked, "hydra.launcher.jobs=2")
    assert again[0] == 0 and "nothing to start" in again[1] and "trials drawn" not in again[1]


Submit = Callable[[Manifest, SlurmLauncherSettings, Sequence[SweepRun]], list[str]]


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[SweepRun]:
    """What was submitted, to nobody."""
    runs: list[SweepRun] = []

    def submit(manifest: Manifest, settings: SlurmLauncherSettings, asked: Sequence[SweepRun]) -> list[str]:
        runs.extend(asked)
        for run in asked:
            set_status(run, RunState.PENDING)
        record_events(manifest, [event("submitted", run.label, job="") for run in asked])
        return [f"7_{number}" for number, _ in enumerate(asked)]

    monkeypatch.setattr(launch, "_slurm_submit", lambda: submit)
    return runs


def ended(run: SweepRun, state: RunState) -> None:
    set_status(run, state)
    row = {"step": 0, "section": "validation", "validation/srcc": reached(run)}
    (run.directory / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def test_a_cluster_gets_a_round_at_a_time_and_is_told_how_to_get_the_next(
    qhk: Qhk, submitted: list[SweepRun]
) -> None:
    """A trial that failed is a result of the search: it does not keep the next round from starting."""
    code, out, err = qhk(
        "train",
        *words("random", trials=3, parallel=2),
        "hydra/launcher=slurm",
        "hydra.launcher.partition=gpu",
    )
    assert code == 0, err
    assert "2 runs submitted" in out and "search: 2 of 3 trials drawn; once these have ended, " in out
    assert "qhk sweep resume hunt starts the next round (hydra.launcher.wait=true goes on by itself)" in out
    ended(submitted[0], RunState.DONE)
    ended(submitted[1], RunState.FAILED)
    code, out, _ = qhk("sweep", "status", "hunt")
    assert code == 1 and "search: 2 of 3 trials drawn; qhk sweep resume hunt starts the next round" in out
    code, out, err = qhk("sweep", "resume", "hunt")
    assert code == 0 and "1 runs submitted" in out, err
    assert "failed trials count as such in the search: trial_001; cell=NAME starts one again" in out
    assert [run.cell for run in submitted] == ["trial_000", "trial_001", "trial_002"]
    assert "trials drawn" not in out
    ended(submitted[2], RunState.DONE)
    assert qhk("sweep", "resume", "hunt")[0] == 0
    assert submitted[-1].cell == "trial_001", "once all trials are drawn, what failed is started again"


def test_a_search_goes_on_with_the_same_settings_alone(qhk: Qhk, submitted: list[SweepRun]) -> None:
    """Its trials differ in what was drawn, or they could not be compared."""
    asked = [*words("random", trials=2, parallel=1), "hydra/launcher=slurm"]
    qhk("train", *asked)
    ended(submitted[0], RunState.DONE)
    code, _, err = qhk("train", *asked, "optimizer.eps=1e-6")
    assert code == 2 and "trial_000/seed0 is run id " in err and "(optimizer.eps was 1e-08, is 1e-06)" in err


def test_a_search_whose_words_are_of_an_earlier_version_says_how_it_goes_on(
    qhk: Qhk, submitted: list[SweepRun], tmp_path: Path
) -> None:
    asked = [*words("random", trials=2, parallel=1), "hydra/launcher=slurm", "loading.workers=0"]
    qhk("train", *asked)
    ended(submitted[0], RunState.DONE)
    manifest = read_manifest(tmp_path / "outputs/sweeps/hunt")
    earlier = [word.replace("loading.", "data.") for word in manifest.overrides]
    write_manifest(replace(manifest, overrides=tuple(earlier)))
    code, _, err = qhk("sweep", "resume", "hunt")
    assert code == 2 and err.count("\n") == 1
    assert "data.workers=0: write loading.workers=0); launch it again with qhk train, the words mended" in err
    assert qhk("train", *asked)[0] == 0 and len(submitted) == 2


def test_a_search_with_trials_left_is_not_all_done(qhk: Qhk, submitted: list[SweepRun]) -> None:
    qhk("train", *words("random", trials=2, parallel=1), "hydra/launcher=slurm")
    ended(submitted[0], RunState.DONE)
    assert qhk("sweep", "status", "hunt")[0] == 3
    assert qhk("sweep", "resume", "hunt")[0] == 0
    ended(submitted[1], RunState.DONE)
    assert qhk("sweep", "status", "hunt")[0] == 0
