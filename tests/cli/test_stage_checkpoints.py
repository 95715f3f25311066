"""Checkpoints of a run of two stages that ask different things, through ``evaluate`` and ``score``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from qhk.cli.main import main
from qhk.policy.contents import CONTENTS_FILE
from qhk.training.checkpoint import STAGE_FILE
from tests.training.test_stage_tasks import SHORT

STAGE = "stages.comparisons"
WORDS = (
    *SHORT,
    "stages=scores_then_comparisons",
    "training.keep_every=1",
    "name=run",
    "loading.limit=8",
    "loading.validation_limit=4",
    "benchmark={miniature_spaq:{limit:4}}",
    f"{STAGE}.benchmark={{miniature_comparison:{{limit:4}}}}",
)
SCORES = ("benchmark={miniature_spaq:{limit:4}}",)
COMPARISONS = ("benchmark={miniature_comparison:{limit:4}}",)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path) -> Path:
    """Where a run of two steps lies, one for each stage."""
    root = tmp_path_factory.mktemp("stages")
    (root / "cache").symlink_to(miniature_cache)
    assert main(["train", *WORDS, f"paths.outputs={root}/out", f"paths.cache={root}/cache"]) == 0
    return root


def checkpoint(root: Path, name: str) -> Path:
    return root / "out" / "default" / "run" / "seed0" / "checkpoints" / name


def evaluate(root: Path, folder: Path, *words: str) -> int:
    paths = (f"paths.outputs={root}/out", f"paths.cache={root}/cache", "evaluation.bootstrap=0")
    return main(["evaluate", f"checkpoint={folder}", *paths, *words])


def asked(capsys: pytest.CaptureFixture[str]) -> set[tuple[str, str, int, float]]:
    """Benchmark, form, step and read share of each row that the evaluation wrote."""
    folder = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("results: "))
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return {(row["benchmark"], row["form"], row["step"], row["n"]) for row in rows}


@pytest.mark.parametrize("is_old", [False, True])
def test_a_checkpoint_is_asked_what_its_own_stage_asked(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_old: bool
) -> None:
    first, last = checkpoint(root, "step_000001"), checkpoint(root, "last")
    if is_old:  # written before checkpoints said their stage, or listed their files: their steps do
        for name in ("step_000001", "step_000002"):
            shutil.copytree(checkpoint(root, name), tmp_path / name)
            for file in (STAGE_FILE, CONTENTS_FILE):
                (tmp_path / name / file).unlink()
        first, last = tmp_path / "step_000001", tmp_path / "step_000002"
    else:
        assert (first / STAGE_FILE).read_text() == "scores\n"
        assert (last / STAGE_FILE).read_text() == "comparisons\n"
    assert evaluate(root, first, *SCORES) == 0
    assert asked(capsys) == {("miniature_spaq", "score", 1, 4)}
    assert evaluate(root, last, *COMPARISONS) == 0
    assert asked(capsys) == {("miniature_comparison", "comparison", 2, 4)}


def test_another_stage_can_be_asked_for(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = checkpoint(root, "last")
    assert evaluate(root, last, *SCORES, "stage=scores") == 0
    assert asked(capsys) == {("miniature_spaq", "score", 2, 4)}
    picture = tmp_path / "one.png"
    Image.new("RGB", (64, 64), (90, 120, 60)).save(picture)
    words = ["score", str(picture), f"checkpoint={last}", "format=json", "num_samples=2"]
    assert main(words) == 2
    assert "prompt.user shows 3 pictures" in capsys.readouterr().err
    assert main([*words, "stage=scores"]) == 0
    assert "score" in json.loads(capsys.readouterr().out)


def test_a_stage_that_there_is_not_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = checkpoint(root, "last")
    assert evaluate(root, last, *SCORES, "stage=score") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"stage=score: is no stage of the run that wrote {last}; choose one of scores, comparisons" in line
    assert main(["evaluate", "stage=scores"]) == 2
    assert "stage=scores: a base model has no stages" in capsys.readouterr().err
