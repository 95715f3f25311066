"""Train, evaluate and score through the command line, one after the other, on a small run."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from qhk.cli.main import main
from qhk.tracking.status import RunState, read_status
from qhk.training.checkpoint import CONFIG_FILE
from tests.conftest import repository_catalogue
from tests.training.conftest import base, taught

__all__ = ["base", "taught"]

Trained = tuple[Path, list[str]]


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path, base: tuple[str, ...]
) -> Trained:
    """The directory of a finished run and the words that made it."""
    root = tmp_path_factory.mktemp("commands")
    (root / "out").mkdir()
    (root / "out" / "cache").symlink_to(miniature_cache)
    perturbed = ["perturbation=degradations", "perturbation.images=2", "perturbation.degradations=[noise]"]
    words = [*base, f"paths.outputs={root}/out", "name=small", *perturbed]
    assert main(["train", *words]) == 0
    return root / "out" / "default" / "small" / "seed0", words


def test_a_finished_run_says_so_and_prints_its_table_again(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, words = trained
    before = (directory / "metrics.jsonl").read_bytes()
    assert main(["train", *words]) == 0
    out, err = capsys.readouterr()
    assert "already done" in err
    assert "MINIATURE SYNTHETIC" in out and "miniature_spaq" in out and str(directory) in out
    assert (directory / "metrics.jsonl").read_bytes() == before


def test_the_run_directory_tells_the_whole_story(trained: Trained) -> None:
    directory, _ = trained
    names = {path.name for path in directory.iterdir()}
    assert {"config.yaml", "provenance.json", "metrics.jsonl", "completions.jsonl", "results.json"} <= names
    status = read_status(directory / "status.json")
    assert status is not None and status.state is RunState.DONE and status.step == 4


def test_another_config_in_the_same_directory_is_refused(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, words = trained
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert main(["train", *words, "optimizer.lr=1e-3"]) == 2
    assert "belongs to run id" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_evaluate_reads_what_training_reported(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    directory, words = trained
    checkpoint = directory / "checkpoints" / "last"
    own = [word for word in words if not word.startswith(("name=", "model", "rollout."))]
    assert main(["evaluate", *own, f"checkpoint={checkpoint}"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("results: "))
    trained_rows = json.loads((directory / "results.json").read_text())["rows"]
    evaluated = json.loads((folder / "results.json").read_text())["rows"]
    after = {row["readout"]: row["metrics"]["mae"] for row in trained_rows if row["moment"] == "after"}
    assert after["mean_of_8"]["value"] is not None
    assert {row["readout"]: row["metrics"]["mae"] for row in evaluated} == after
    assert {row["seen"] for row in [*trained_rows, *evaluated]} == {True}


def test_perturbed_copies_are_scored_in_training_and_by_evaluate(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, words = trained
    own = [word for word in words if not word.startswith(("name=", "model", "rollout."))]
    assert main(["evaluate", *own, f"checkpoint={directory}/checkpoints/last"]) == 0
    out = capsys.readouterr().out
    folder = Path(out.splitlines()[-1].removeprefix("results: "))
    found, again = (json.loads((place / "results.json").read_text()) for place in (directory, folder))
    after = [row for row in found["perturbed"] if row["moment"] == "after"]
    noise = [("noise", step, 2) for step in range(1, 6)]
    expected = [*noise, ("noise", None, 10), ("another", None, 2), ("grey", None, 2)]
    assert [(row["kind"], row["strength"], row["n"]) for row in after] == expected
    assert [{**row, "step": 4} for row in again["perturbed"]] == after
    assert len(found["perturbed"]) == 2 * len(after) and {row["readout"] for row in after} == {"mean_of_8"}
    assert "perturbed copies, read-out mean_of_8: after (step 4)" in out
    assert len(list((directory / "perturbed").rglob("*.jsonl"))) == 2 * 7


def test_evaluations_of_different_parts_do_not_meet(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, words = trained
    own = [word for word in words if not word.startswith(("name=", "benchmark", "model", "rollout."))]
    for limit in (2, 3):
        more = [f"checkpoint={directory}/checkpoints/last", f"benchmark={{miniature_spaq:{{limit:{limit}}}}}"]
        assert main(["evaluate", *own, *more]) == 0
        folder = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("results: "))
        found = json.loads((folder / "results.json").read_text())["rows"]
        assert len({row["readout"] for row in found}) == len(found) == 3
        assert {row["n"] for row in found} == {limit}


def test_a_checkpoint_brings_its_own_length_of_answers(trained: Trained) -> None:
    from qhk.cli.checkpoints import adopt_checkpoint
    from qhk.cli.job import prepare

    directory, _ = trained
    words = [f"checkpoint={directory}/checkpoints/last", "scale=full", "experiment=q_hawkeye"]
    settings = prepare("evaluate", words, repository_catalogue()).settings
    assert settings.rollout.max_new_tokens == 2048
    adopted = adopt_checkpoint(settings, words, stage=None, datasets={})
    assert adopted.rollout.max_new_tokens == 14
    assert adopted.evaluation.readouts["mean_of_8"].max_new_tokens == 14
    chosen = adopt_checkpoint(settings, [*words, "evaluation=greedy"], stage=None, datasets={})
    assert list(chosen.evaluation.readouts) == ["greedy"]
    assert chosen.evaluation.readouts["greedy"].max_new_tokens == 14


def test_a_checkpoint_brings_what_is_shown_of_a_picture(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from qhk.cli.checkpoints import adopt_checkpoint
    from qhk.cli.commands.evaluate import evaluation_folder
    from qhk.cli.job import prepare

    copied = shutil.copytree(trained[0] / "checkpoints" / "last", tmp_path / "step_000001")
    words = [f"checkpoint={copied}"]
    settings = prepare("evaluate", words, repository_catalogue()).settings
    whole = adopt_checkpoint(settings, words, stage=None, datasets={})
    config = yaml.safe_load((copied / CONFIG_FILE).read_text())
    crop = {"framing": {"form": "crop", "side": 64, "pieces": None}}
    (copied / CONFIG_FILE).write_text(yaml.safe_dump(config | crop))
    cropped = adopt_checkpoint(settings, words, stage=None, datasets={})
    assert (whole.framing.form, cropped.framing.form) == ("whole", "crop")
    assert evaluation_folder(whole) != evaluation_folder(cropped)
    assert main(["evaluate", *words, "framing=whole"]) == 2
    assert "framing=whole: framing comes from the checkpoint's own config" in capsys.readouterr().err


def test_the_folder_of_an_evaluation_follows_what_is_asked_alone() -> None:
    """Neither how fast, nor a key at its default, so that one which is added later renames nothing."""
    from qhk.cli.commands.evaluate import evaluated
    from qhk.cli.job import prepare

    def named(*words: str) -> dict[str, Any]:
        words = ("model=tiny", *words)
        return evaluated(prepare("evaluate", words, repository_catalogue()).settings)

    usual = named()
    assert "framing" not in usual and "score" not in usual["evaluation"]["readouts"]["mean_of_8"]
    assert named("evaluation.batch_images=3") == usual == named("framing=whole")
    assert named("framing=crop", "framing.side=64")["framing"] == {"form": "crop", "side": 64, "pieces": None}
    assert named("seed=5")["seed"] == 5 and named("evaluation=greedy")["evaluation"] != usual["evaluation"]


def test_evaluate_refuses_another_prompt_than_the_checkpoints(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, _ = trained
    assert main(["evaluate", f"checkpoint={directory}/checkpoints/last", "prompt=score"]) == 2
    assert "prompt=score: prompt comes from the checkpoint's own config" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["evaluate"], ["evaluate", "checkpoint=nowhere"]])
def test_evaluate_without_a_policy_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "benchmark=[]"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of three small pictures, one that is cut short, and files that are none."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b c.jpg", "d.bmp")):
        pixels = np.random.default_rng(number).integers(0, 256, (70, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "c.bmp").write_bytes((folder / "d.bmp").read_bytes()[:2000])
    (folder / "notes.txt").write_text("not a picture")
    (folder / "report.PDF").write_bytes(b"%PDF-1.4")
    (folder / "film.mpg").write_bytes(b"\x00\x00\x01\xba")
    (folder / "._a.jpg").write_bytes(b"\x00\x05\x16\x07")
    (folder / "x.jpg").mkdir()
    return folder


def test_a_bad_picture_has_a_row_and_foreign_files_are_counted(
    trained: Trained, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["score", str(pictures), f"checkpoint={trained[0]}/checkpoints/last", "num_samples=4"]
    assert main([*words, "format=json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b c.jpg", "c.bmp", "d.bmp"]
    bad = rows[2]
    assert "c.bmp: not a readable image" in bad["error"] and (bad["score"], bad["samples"]) == (None, [])
    assert all(row["error"] is None for row in rows if row is not bad)
    assert all(len(row["samples"]) == 4 for row in rows if row is not bad)
    assert all(row["unparsed"] == sum(sample is None for sample in row["samples"]) for row in rows)
    assert "images/s" in err and "skipped, no images: 1 hidden, 3 other files, 1 folders\n" in err
    assert "1 image could not be opened: the error is in its row" in err
    assert main([*words, "format=csv"]) == 1
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [{**row, "samples": json.loads(row["samples"])} for row in table] == [
        {
            key: "" if value is None else value if key == "samples" else str(value)
            for key, value in row.items()
        }
        for row in rows
    ]


def test_score_of_a_glob_equals_score_of_the_files(
    trained: Trained, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"checkpoint={trained[0]}/checkpoints/last"
    assert main(["score", f"{pictures}/*.jpg", checkpoint, "format=json"]) == 0
    by_glob, err = capsys.readouterr()
    assert "skipped, no images: 1 folders" in err
    assert main(["score", f"{pictures}/b c.jpg", checkpoint, "format=json"]) == 0
    assert capsys.readouterr().out == by_glob != ""


def test_score_as_a_table(trained: Trained, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = f"checkpoint={trained[0]}/checkpoints/last"
    assert main(["score", str(pictures / "a.png"), str(pictures / "c.bmp"), checkpoint]) == 1
    out = capsys.readouterr().out
    assert "a.png" in out.replace("\n", "") and "spread" in out and "error:" in out


@pytest.mark.parametrize(
    "name", ["notes.txt", "report.PDF", "film.mpg", "._a.jpg", "x.jpg", "nothing.png", "*.txt"]
)
def test_score_of_what_is_named_and_no_image_is_one_line(
    pictures: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(pictures / "a.png"), str(pictures / name), "checkpoint=null"]) == 2
    err = capsys.readouterr().err
    assert name in err and err.count("\n") == 1
