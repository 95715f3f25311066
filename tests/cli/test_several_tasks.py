"""A checkpoint of two tasks, its main one answered in words, through ``qhk evaluate`` and ``qhk score``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from qhk.cli.checkpoints import adopt_checkpoint, other_tasks
from qhk.cli.job import prepare
from qhk.cli.main import main
from qhk.evaluation.score import NamedImage, as_csv, as_table, summarise_words
from qhk.types import Answer, Completion
from tests.conftest import repository_catalogue
from tests.tasks.builders import task_of
from tests.training.conftest import SMALL

OPINION = "mixture.opinion"
WORDS = (
    *(word for word in SMALL if not word.startswith(("data", "loading", "benchmark"))),
    "task=degradation",
    "prompt=degradation_short",
    "reward=q_insight_degradation",
    "data=miniature_degradation",
    "loading.limit=8",
    "loading.validation_limit=4",
    "benchmark={miniature_degradation:{limit:6}}",
    f"+task@{OPINION}.task=score",
    f"+prompt@{OPINION}.prompt=score_short",
    f"+reward@{OPINION}.reward=q_hawkeye",
    f"+{OPINION}.data=[miniature_spaq]",
    f"+{OPINION}.benchmark={{miniature_spaq:{{limit:5}}}}",
    f"+{OPINION}.share=0.5",
    "rollout.max_new_tokens=40",
    "training.duration.steps=1",
    "name=two",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path) -> Path:
    """Where a run of the two tasks lies."""
    root = tmp_path_factory.mktemp("several")
    (root / "cache").symlink_to(miniature_cache)
    assert main(["train", *WORDS, f"paths.outputs={root}/out", f"paths.cache={root}/cache"]) == 0
    return root


def evaluated(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[tuple[str, str], Any]:
    """The greedy figures of an evaluation, by benchmark and form."""
    paths = (f"paths.outputs={root}/out", f"paths.cache={root}/cache", "evaluation.bootstrap=10")
    checkpoint = f"checkpoint={root}/out/default/two/seed0/checkpoints/last"
    assert main(["evaluate", checkpoint, *paths, *words]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("results: "))
    return figures(folder)


def figures(folder: Path) -> dict[tuple[str, str], Any]:
    rows = json.loads((folder / "results.json").read_text())["rows"]
    after = [row for row in rows if row["moment"] == "after" and row["readout"] == "greedy"]
    return {(row["benchmark"], row["form"]): (row["n"], row["n_parsed"], row["metrics"]) for row in after}


MAIN = ("benchmark={miniature_degradation:{limit:6}}",)


def test_all_tasks_of_a_checkpoint_are_evaluated(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = figures(root / "out" / "default" / "two" / "seed0")
    assert set(trained) == {("miniature_degradation", "degradation"), ("miniature_spaq", "score")}
    assert evaluated(root, capsys, *MAIN) == trained


def test_the_main_task_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = evaluated(root, capsys, *MAIN, "mixture=none")
    assert set(alone) == {("miniature_degradation", "degradation")}


def test_the_command_line_names_benchmarks_of_other_tasks() -> None:
    catalogue = repository_catalogue()
    trained = prepare("train", ["mixture=degradation", "scale=miniature"], catalogue).settings
    asked = prepare("evaluate", ["mixture=degradation"], catalogue).settings
    (part,) = other_tasks(trained, asked).values()
    assert [*part.benchmark] == ["dq_495k"]
    assert part.prompt == trained.mixture["degradation"].prompt != asked.mixture["degradation"].prompt
    assert other_tasks(trained, trained) == trained.mixture
    assert other_tasks(trained, trained.model_copy(update={"mixture": {}})) == {}


def test_the_command_line_says_where_the_sets_of_other_tasks_lie(root: Path) -> None:
    words = [f"checkpoint={root}/out/default/two/seed0/checkpoints/last", *MAIN]

    words += ["data=miniature_degradation", "dataset.miniature_spaq.root=elsewhere"]
    job = prepare("evaluate", words, repository_catalogue())
    assert "miniature_spaq" not in job.settings.dataset  # no benchmark of the command line's
    adopted = adopt_checkpoint(job.settings, words, stage=None, datasets=job.datasets)
    assert adopted.dataset["miniature_spaq"].root == "elsewhere"
    unknown = {name: entry for name, entry in job.datasets.items() if name != "miniature_spaq"}
    adopted = adopt_checkpoint(job.settings, words, stage=None, datasets=unknown)
    assert adopted.dataset["miniature_spaq"].root == "spaq"


def test_a_task_that_the_checkpoint_has_not_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"checkpoint={root}/out/default/two/seed0/checkpoints/last"
    assert main(["evaluate", checkpoint, *MAIN, "mixture=degradation"]) == 2
    assert (
        "mixture.degradation: is no task of the checkpoint's own (beside its main one: opinion); leave it out"
        in capsys.readouterr().err
    )
    assert (
        main(["evaluate", checkpoint, *MAIN, "mixture.degradation.prompt.user=x", "mixture=degradation"]) == 2
    )
    assert "prompt comes from the checkpoint's own config" in capsys.readouterr().err


def test_answers_in_words_are_columns(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = root / "one.png"
    Image.new("RGB", (64, 64), (90, 120, 60)).save(picture)
    checkpoint = f"checkpoint={root}/out/default/two/seed0/checkpoints/last"
    capsys.readouterr()
    assert main(["score", str(picture), checkpoint, "format=json", "num_samples=4"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert list(answer) == ["image", "labels", "agreement", "samples", "unparsed", "reasoning", "error"]
    assert len(answer["samples"]) == 4
    assert answer["unparsed"] == answer["samples"].count(None)


def said(kind: str | None, severity: str = "slight") -> Completion:
    labels = {"distortion_class": kind, "severity": severity} if kind else {}
    return Completion(
        text=f"<think>it is {kind}</think>",
        answer=Answer(score=None, labels=labels),
        num_tokens=3,
        truncated=False,
    )


def test_what_most_samples_say_is_the_answer() -> None:
    spoken = [said(None), said("noise"), said("blur"), said("blur"), said("blur", "serious")]
    item = summarise_words("a.png", spoken)
    assert item.labels == {"distortion_class": "blur", "severity": "slight"}
    assert (item.agreement, item.unparsed, item.reasoning) == (0.5, 1, "it is blur")
    assert [sample and sample["distortion_class"] for sample in item.samples] == [
        None,
        "noise",
        "blur",
        "blur",
        "blur",
    ]
    silent = summarise_words("b.png", [said(None), said(None)])
    assert (silent.labels, silent.agreement, silent.unparsed) == (None, None, 2)
    assert shown([item, silent]) == [
        ["image", "distortion_class", "severity", "agreement", "samples read", "reasoning"],
        ["a.png", "blur", "slight", "0.50", "4/5", "it is blur"],
        ["b.png", "-", "-", "-", "0/2", "it is None"],
    ]


def test_words_as_csv_have_a_column_for_each_label() -> None:
    task, spoken = task_of("degradation", "json"), [said("blur"), said(None), said("noise")]
    lines = as_csv([summarise_words("a,b.png", spoken)], task, heading=True).splitlines()
    assert lines[0] == "image,distortion_class,severity,agreement,samples,unparsed,reasoning,error"
    assert lines[1].startswith('"a,b.png",blur,slight,0.5,"[{') and lines[1].endswith(",1,it is blur,")
    assert as_csv([summarise_words("a,b.png", spoken)], task, heading=False) == lines[1] + "\n"


def shown(items: list[NamedImage]) -> list[list[str]]:
    """The cells of the printed table."""
    console = Console(file=io.StringIO(), width=200)
    console.print(as_table(items, task_of("degradation", "json")))
    lines = console.file.getvalue().replace("┃", "│").splitlines()  # type: ignore[attr-defined]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]
