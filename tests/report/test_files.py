"""``qhk report``, ``runs list`` and ``runs compare``: the files and the terminal."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qhk.cli.main import main
from qhk.files import append_json_lines
from qhk.report.content import ReportOptions, gather
from qhk.report.render import HEADING, latex_text
from qhk.report.runs import Runs, read_runs
from qhk.report.terminal import list_table
from qhk.tracking.names import COLLAPSE_SIGNS
from tests.report.builders import STEPS, module_config, write_modules, write_run

OPTIONS = ReportOptions(title="t", reference=None, num_resamples=0, confidence=0.95, thumbnails=False)

KEY = {"metric", "moment", "method", "benchmark"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("outputs")
    study = write_modules(root, seeds=2)
    hostile = {**module_config(uncertainty=True, perception=True), "task": {"name": "</script><b>"}}
    write_run(root, "broken", 0, noise=0.5, config=hostile, state="failed", cause="step 12: </script> is NaN")
    yield study


@pytest.fixture(scope="module")
def page(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("report") / "modules.html"
    words = ["report", str(study), f"output={page}", "reference=grpo_baseline", "resamples=60"]
    assert main([*words, f"paths.outputs={study.parent}"]) == 0
    return page


def data_of(page: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_everything_itself(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text.split('id="data"')[0])
    assert "connect-src 'none'" in text and "https://" not in text.split('id="data"')[0]
    data = data_of(page)
    assert data["methods"][0] == "broken" and len(data["runs"]) == 9
    assert data["logs"][0]["cause"] == "step 12: </script> is NaN"
    assert "RuntimeError: loss is NaN" in data["logs"][0]["log"]
    assert data["changes"]["task.name"]["broken"] == "</script><b>"


def test_tables_effects_and_images_of_the_page(page: Path) -> None:
    data = data_of(page)
    main_table = data["tables"][0]
    assert main_table["view"] == {"metric": "srcc", "moment": "after", "readout": "mean4"}
    full = main_table["rows"]["full"]["average"]
    assert full["low"] < full["mean"] < full["high"] and full["best"]
    assert main_table["against"]["full"]["average"]["p"] < 0.05
    assert any(line.startswith("uncertainty=linear: +") for line in data["effects"][0]["sentences"])
    kadid = next(entry for entry in data["images"] if entry["benchmark"] == "kadid")
    assert len(kadid["images"]) == 60 and len(kadid["worst"]) == 24
    said = next(image for image in kadid["images"] if image["id"] == kadid["worst"][0])["scores"]["full"]
    assert "<think>" in said["text"] and len(said["samples"]) == 4
    assert {part["by"] for part in kadid["parts"]["full"]} == {"distortion", "level"}
    assert 0 <= kadid["reliability"]["full"]["coverage"] <= 1
    (said,) = data["histograms"]["full"]
    assert said["source"] == "benchmarks, mean4"
    assert said["steps"][0]["step"] == 0 and sum(said["steps"][0]["counts"]) == 960
    assert {row["benchmark"] for row in data["published"]} == {"koniq", "kadid"}
    assert data["curves"]["train/reward/total/mean"]["full"]["step"][-1] == 20


def test_csv_and_latex_hold_the_same_numbers(page: Path) -> None:
    with page.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = ("srcc", "after", "full", "average")
    cell = next(row for row in rows if tuple(row[key] for key in HEADING if key in KEY) == wanted)
    expected = data_of(page)["tables"][0]["rows"]["full"]["average"]
    assert float(cell["mean"]) == expected["mean"] and cell["seeds"] == "2" and cell["best"] == "1"
    tex = page.with_suffix(".tex").read_text()
    assert rf"\textbf{{{expected['mean']:.3f}}}" in tex and r"grpo\_baseline & " in tex
    assert "broken & -- & -- & --" in tex


def test_latex_text_escapes() -> None:
    assert latex_text(r"a_b&c%\~") == r"a\_b\&c\%\textbackslash{}\textasciitilde{}"


def test_names_of_sweeps_and_studies_are_found(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", study.name, f"paths.outputs={study.parent}"]) == 0
    out = capsys.readouterr().out
    assert (
        "study" in out
        and re.search(rf"full/seed0 +│ +{study.name} ", out)
        and "step 12: </script> is NaN" in out
    )


def test_runs_are_compared_in_the_terminal(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["runs", "compare", str(study), "reference=grpo_baseline", "resamples=60"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "grpo_baseline *" in out and "uncertainty=linear: +" in out and "perception.gamma" in out
    assert "as the field tests it" not in out
    two = [str(study / name) for name in ("full", "grpo_baseline")]
    assert main(["runs", "compare", *two, "reference=grpo_baseline", "resamples=60"]) == 0
    out = capsys.readouterr().out
    assert "as the field tests it" in out and re.search(r"full +│ +average +│ +[01]\.\d\d ", out)


def test_of_many_methods_each_has_a_line_of_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in range(6):
        write_run(tmp_path, f"method{place}", 0, noise=0.5, config={"optimizer": {"lr": float(place)}})
    assert main(["runs", "compare", str(tmp_path), "reference=method2", "resamples=0"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "optimizer.lr=" in line]
    found = [re.search(r"│ (\S+) +│ optimizer.lr=(\S+) ", line) for line in lines]
    others = [(f"method{place}", f"{place}.0") for place in (0, 1, 3, 4, 5)]
    assert [one and one.groups() for one in found] == others


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "nowhere"], "nowhere: no such folder, sweep or study"),
        (["report"], "give at least one RUNS"),
        (["report", "STUDY", "output=page.pdf"], "output=page.pdf: the page is an HTML file"),
        (["report", "STUDY", "reference=x"], "reference=x: no such method; there are broken"),
        (["runs", "compare", "STUDY", "metric=sroc"], "metric=sroc: no run has it; there are srcc"),
        (["runs", "compare", "STUDY", "moment=control"], "moment: must be one of 'before', 'after', got"),
        (["runs", "compare", "STUDY", "readout=x"], "readout=x: no such read-out; there are mean4"),
    ],
)
def test_what_is_not_there_is_one_line(
    words: list[str], said: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(study) if word == "STUDY" else word for word in words]
    assert main([*words, f"paths.outputs={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_sources_of_scores_stand_apart_and_runs_that_go_on_show_their_log(tmp_path: Path) -> None:
    run = write_run(tmp_path, "m", 0, noise=0.5, config={})
    rows = [{"step": step, "scores": [1.0, 5.0, None, 5.0]} for step in (5, 10, 10)]
    append_json_lines(run / "completions.jsonl", rows)
    (run / "run.log").write_text("old\n")
    (run / "console.log").write_text("x\n" * 9000 + "Killed\n")
    os.utime(run / "run.log", ns=(1, 1))
    records = [replace(record, state="running", step=7) for record in read_runs(tmp_path).records]
    content = gather(Runs(records), OPTIONS, lambda what, done, of: None)
    training, benchmarks = sorted(content["histograms"]["m"], key=lambda said: said["source"] != "training")
    assert [(bars["step"], sum(bars["counts"])) for bars in training["steps"]] == [(5, 3), (10, 6)]
    assert training["steps"][1]["counts"][0] == 2 and training["steps"][1]["counts"][-1] == 4
    assert benchmarks["source"] == "benchmarks, mean4"
    assert [bars["step"] for bars in benchmarks["steps"]] == [0, STEPS]
    (log,) = content["logs"]
    assert (log["state"], log["step"]) == ("running", 7)
    assert log["log"].endswith("x\nKilled") and len(log["log"].splitlines()) == 30


def test_a_metric_that_the_page_does_not_know_has_its_table(tmp_path: Path) -> None:
    run = write_run(tmp_path, "m", 0, noise=0.5, config={})
    text = (run / "results.json").read_text().replace('"distinct_samples"', '"tokens_per_image"')
    (run / "results.json").write_text(text)
    content = gather(read_runs(tmp_path), OPTIONS, lambda what, done, of: None)
    assert "tokens_per_image" in {table["view"]["metric"] for table in content["tables"]}


def test_signs_of_collapse_are_shown_of_runs_that_still_have_them_and_of_those_that_came_back(
    tmp_path: Path,
) -> None:
    for seed, last in ((0, 2.0), (1, 0.0), (2, None)):
        run = write_run(tmp_path, "m", seed, noise=0.5, config={}, benchmarks=("koniq",))
        if last is not None:
            signs = [
                {"step": step, "section": "validation", COLLAPSE_SIGNS: n}
                for step, n in ((2, 1.0), (4, last))
            ]
            append_json_lines(run / "metrics.jsonl", signs)
        if last:
            status = json.loads((run / "status.json").read_text())
            (run / "status.json").write_text(json.dumps(status | {"warning": "signs of collapse: narrow"}))
    runs = read_runs(tmp_path)
    content = gather(runs, OPTIONS, lambda what, done, of: None)
    assert [(run["warning"], run["collapse_steps"]) for run in content["runs"]] == [
        ("signs of collapse: narrow", [2, 4]), ("", [2]), ("", []),
    ]  # fmt: skip
    causes = list_table(runs).columns[-1].cells
    assert [str(cause) for cause in causes] == ["signs of collapse: narrow", "", ""]


def test_a_method_that_has_not_begun_makes_no_key_differ(tmp_path: Path) -> None:
    write_run(tmp_path, "begun", 0, noise=0.5, config={"objective": {"beta": 1}})
    write_run(tmp_path, "waits", 0, noise=0.5, config={})
    content = gather(read_runs(tmp_path), OPTIONS, lambda what, done, of: None)
    assert content["changes"] == {}


def test_tokens_and_seconds_are_means_over_the_runs_that_have_them(tmp_path: Path) -> None:
    for seed, tokens in ((0, 10.0), (1, 30.0), (2, None)):
        path = write_run(tmp_path, "m", seed, noise=0.5, config={}, benchmarks=("koniq",)) / "results.json"
        content = json.loads(path.read_text())
        for row in content["rows"]:
            row["figures"] = {"tokens_per_image": tokens}
        path.write_text(json.dumps(content))
    (shown, *_) = gather(read_runs(tmp_path), OPTIONS, lambda what, done, of: None)["tables"]
    assert shown["figures"] == {"m": {"tokens_per_image": 20.0}}
