"""What an earlier version left on disk is read by this one, through the command line.

The files of each version stay as that version wrote them; what they hold is described in ``make.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qhk.cli.main import main
from qhk.pairs.manifest import open_pairs
from qhk.settings.parse import read_settings
from qhk.settings.views import task_views
from qhk.tracking.recorder import read_metrics
from tests.record.make import RECORD, machine
from tests.stored.make import FINISHED, STEPS, STOPPED, SWEEP, photos, place, words

VERSIONS = sorted(path for path in Path(__file__).parent.glob("v*") if path.is_dir())
Qhk = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda path: path.name)
def version(request: pytest.FixtureRequest) -> Path:
    """The folder that holds the files of a version."""
    folder: Path = request.param
    return folder


@pytest.fixture(scope="module")
def placed(version: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files lie as if they had been made there; for tests that change none of them."""
    root = tmp_path_factory.mktemp(version.name)
    place(version, root)
    return root


@pytest.fixture
def own(version: Path, tmp_path: Path) -> Path:
    """The files at a place of the test's own, which it may change."""
    place(version, tmp_path)
    return tmp_path


@pytest.fixture
def qhk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Qhk:
    """Run a command line in a folder: (exit code, stdout, stderr)."""

    def run(folder: Path, *words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "500")
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def seed0(root: Path, cell: str) -> Path:
    return root / "outputs" / SWEEP / cell / "seed0"


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_checkpoint_is_evaluated(placed: Path, qhk: Qhk, tmp_path: Path) -> None:
    """It gives the numbers that its run had at its end; the same answers on the machine that wrote both."""
    checkpoint = seed0(placed, FINISHED) / "checkpoints" / "last"
    words = [f"checkpoint={checkpoint}", *photos(placed), "evaluation=greedy", "evaluation.bootstrap=0"]
    code, out, err = qhk(tmp_path, "evaluate", *words, f"paths.cache={tmp_path}/cache")
    assert code == 0, err
    assert f"(step {STEPS})" in out
    (found,) = (tmp_path / "outputs" / "evaluations").glob(
        f"*/predictions/step_{STEPS:06d}/greedy/folder.jsonl"
    )
    stored = rows(seed0(placed, FINISHED) / f"predictions/step_{STEPS:06d}/greedy/folder.jsonl")
    assert [row["id"] for row in rows(found)] == [row["id"] for row in stored]
    if machine() == json.loads(RECORD.read_text(encoding="utf-8"))["machine"]:
        now = rows(found)
        # Versions before told no number of tokens.
        assert all(row.pop("tokens") for row in now) and not any("tokens" in row for row in stored)
        assert now == stored


def test_a_checkpoint_scores_a_picture(placed: Path, qhk: Qhk) -> None:
    checkpoint = seed0(placed, FINISHED) / "checkpoints" / "last"
    code, out, err = qhk(placed, "score", "photos/images/13.png", f"checkpoint={checkpoint}", "format=json")
    assert code == 0, err
    answer = json.loads(out.splitlines()[0])
    assert 1.0 <= answer["score"] <= 5.0 and answer["unparsed"] < len(answer["samples"])


def test_a_sweep_tells_its_status(placed: Path, qhk: Qhk) -> None:
    code, out, _ = qhk(placed, "sweep", "status", SWEEP)
    assert code == 3 and "1 preempted, 1 done" in out
    assert f"{STOPPED}/seed0 preempted: stopped by SIGTERM; checkpointed at step 3" in out
    code, out, _ = qhk(placed, "sweep", "logs", SWEEP, "lines=1")
    assert code == 0 and f"{STOPPED}/seed0" in out and f"{FINISHED}/seed0" not in out


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_its_end(own: Path, qhk: Qhk) -> None:
    """From its checkpoint, not from the start: what it has recorded stays, and every step is there once."""
    metrics = seed0(own, STOPPED) / "metrics.jsonl"
    before = metrics.read_bytes()
    finished = (seed0(own, FINISHED) / "metrics.jsonl").read_bytes()
    code, out, err = qhk(own, "sweep", "resume", SWEEP)
    assert code == 0 and "2 done" in out, out + err
    assert metrics.read_bytes().startswith(before)
    assert (seed0(own, FINISHED) / "metrics.jsonl").read_bytes() == finished
    steps = [row.step for row in read_metrics(metrics) if "train/loss/total" in row.metrics]
    assert steps == list(range(1, STEPS + 1))
    assert (seed0(own, STOPPED) / "checkpoints" / "last").resolve().name == f"step_{STEPS:06d}"
    assert f"step_{STEPS:06d}" in {path.name for path in seed0(own, STOPPED).glob("predictions/*")}
    assert qhk(own, "sweep", "status", SWEEP)[0] == 0


def test_a_sweep_launched_again_knows_its_runs(own: Path, qhk: Qhk) -> None:
    """One that has begun and one that has not, whose ids have changed with the version."""
    shutil.rmtree(seed0(own, FINISHED).parent)
    asked = [
        "sweep=group_size",
        f"study={SWEEP}",
        "~sweep.cells.g8",
        "~sweep.cells.g16",
        "seed=0",
        "optimizer.lr=8e-4",
        "objective.kl_coef=0.01",
        "loading.augmentation=none",
        *words(own),
    ]
    code, _, err = qhk(own, "train", *asked, "dry_run=true")
    assert code == 2 and f"{FINISHED}/seed0 is run id " in err
    assert "(loading.validation_limit was 200, is 40): give the values that it had" in err
    code, out, err = qhk(own, "train", *asked, "loading.validation_limit=200", "dry_run=true")
    assert code == 0, err
    states = {row.split()[1]: row.split()[-2] for row in out.splitlines() if "group_size=" in row}
    assert states == {FINISHED: "new", STOPPED: "preempted"}, out


def test_a_manifest_of_pairs_goes_on(own: Path, qhk: Qhk) -> None:
    manifest = open_pairs(own / "outputs" / "pairs" / "pairs.jsonl")
    judged = [pair.copy.type for pair in manifest]
    assert sorted(judged) == ["blur", "blur", "noise", "noise"]
    assert all(manifest.source_path(pair).is_file() for pair in manifest)
    code, out, err = qhk(own, "data", "filter", "pairs.filter.threshold=0.8")
    assert code == 0 and "0 failed, 4 were judged" in out, out + err
    code, out, err = qhk(own, "data", "build", "pairs.human_review=skipped")
    assert code == 2 and f"set pairs.roots=[{own / 'photos' / 'images'}]" in err, "no set here has that root"
    photos = f"pairs.roots=[{own / 'photos'}]"
    code, out, err = qhk(own, "data", "build", "pairs.human_review=skipped", photos)
    assert code == 0 and "3 pairs kept (0 strengthened), 1 dropped" in out, out + err
    assert len(rows(own / "outputs" / "pairs" / "set" / "twins.jsonl")) == 3


def test_configs_of_all_kinds_of_run_are_read(placed: Path) -> None:
    settings = {file.stem: read_settings(file) for file in (placed / "configs").glob("*.yaml")}
    assert settings.keys() >= {"mixture", "two_stages", "full_size", "release", "video"}
    assert set(task_views(settings["mixture"])) == {"score", "degradation"}
    assert set(settings["mixture"].benchmark) > {"miniature_koniq", "miniature_spaq"}
    places = {name: stage.place for name, stage in settings["two_stages"].stages.items()}
    assert places == {"scores": 1, "comparisons": 2}
    full = settings["full_size"]
    assert (full.uncertainty.alpha, full.perception.gamma) == (0.2, 1e-4)
    assert full.training.duration.epochs == 15.0 and full.rollout.group_size == 4
    assert full.dataset["koniq"].protocol == "deqa" and not full.dataset["koniq"].miniature
    assert settings["release"].task.answer_rule == "q_hawkeye_release"
    assert settings["video"].task.form == "video" and settings["video"].rollout.group_size == 5


def test_a_file_that_lacks_what_is_needed_is_refused(own: Path, qhk: Qhk) -> None:
    """The files above are really read: without its config a checkpoint is none, without its list no sweep."""
    checkpoint = seed0(own, FINISHED) / "checkpoints" / f"step_{STEPS:06d}"
    (checkpoint / "qhk.yaml").unlink()
    code, _, err = qhk(own, "score", "photos/images/13.png", f"checkpoint={checkpoint}")
    assert code == 2 and "holds no qhk.yaml" in err
    shutil.rmtree(own / "outputs" / "sweeps")
    assert qhk(own, "sweep", "status", SWEEP)[0] == 2
