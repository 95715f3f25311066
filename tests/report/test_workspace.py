"""The W&B workspace of a report: its definition, made without network, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qhk.report import mirror
from qhk.report.mirror import mirror_report
from qhk.report.runs import read_runs
from qhk.report.workspace import Place, build_workspace, result_columns, wanted_place, workspace_spec
from qhk.tracking.mirror import Ending, MirrorContent, MirrorRun
from tests.report.builders import write_modules

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb_workspaces")

PLACE = Place(entity="team", project="qhk")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_modules(tmp_path_factory.mktemp("outputs"), seeds=1)


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "has_account", lambda: False)


def test_workspace_is_the_table_of_methods_and_benchmarks(study: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    runs = read_runs(study)
    columns = result_columns(runs)
    benchmarks = {row.benchmark for record in runs.records for row in record.rows}
    assert columns[0] == "eval/mean/srcc"
    assert {f"eval/{benchmark}/srcc" for benchmark in benchmarks} < set(columns)
    spec = workspace_spec(build_workspace(runs, PLACE, title="modules"))
    assert (spec["entity"], spec["project"], spec["displayName"]) == ("team", "qhk", "modules")
    section = spec["spec"]["section"]
    panels = {part["name"]: part["panels"] for part in section["panelBankConfig"]["sections"]}
    bars = [panel["config"] for panel in panels["methods x benchmarks"]]
    assert [bar["metrics"] for bar in bars] == [[name] for name in columns]
    assert {(bar["groupBy"], bar["groupAgg"], bar["groupArea"]) for bar in bars} == {
        ("name.value", "mean", "stddev")
    }
    axes = {curve["config"]["metrics"][0]: curve["config"]["xAxis"] for curve in panels["curves"]}
    assert axes["validation/srcc"] == "train/step" and axes["cold_start/loss"] == "cold_start/step"
    (runset,) = section["runSets"]
    assert runset["grouping"] == [{"section": "config", "name": "name.value"}]
    pinned = runset["runFeed"]["columnPinned"]
    assert [name for name, shown in pinned.items() if shown] == [
        "run:displayName",
        *(f"summary:{name}" for name in columns),
    ]
    wanted = json.dumps(runset["filters"])
    assert study.name in wanted and all(method.rpartition("/")[2] in wanted for method in runs.methods)


@pytest.mark.parametrize("text", ["team", "team/", "/qhk", "a/b/c", "team/q hk"])
def test_a_place_is_entity_and_project(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert wanted_place("team/qhk.v1") == Place(entity="team", project="qhk.v1")
    with pytest.raises(ValueError, match="wandb_workspace: must be entity/project, got"):
        wanted_place(text)


def test_without_its_library_it_is_refused_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'qhk\[workspace\]'"):
        wanted_place("team/qhk")


def broken() -> None:
    raise OSError("no\nnetwork")


@pytest.mark.parametrize(
    ("account", "save", "said"),
    [
        (False, broken, "the workspace is not in W&B yet: run `wandb login`, then this command again"),
        (True, broken, "the workspace could not be saved in W&B (no network)"),
        (True, lambda: SimpleNamespace(url="https://w/x"), "W&B workspace: https://w/x"),
    ],
    ids=["no account", "no network", "saved"],
)
def test_report_and_workspace_stay_here_until_the_user_sends_them(
    account: bool, save: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[MirrorRun, MirrorContent]] = []

    def rebuild(run: MirrorRun, content: MirrorContent, ending: Ending) -> str:
        told.append((run, content))
        return "to upload"

    monkeypatch.setattr(mirror, "has_account", lambda: account)
    monkeypatch.setattr(mirror.wandb_offline, "rebuild", rebuild)
    monkeypatch.setattr(mirror, "read_runs", lambda *paths: "runs")
    monkeypatch.setattr(mirror, "build_workspace", lambda *_, title: SimpleNamespace(save=save))
    monkeypatch.setattr(mirror, "workspace_spec", lambda workspace: {"entity": "team"})
    page = tmp_path / "modules.html"
    lines = mirror_report([tmp_path], PLACE, [page, page.with_suffix(".csv")], title="modules")
    spec = tmp_path / "modules.workspace.json"
    assert lines == [str(spec), "to upload", said]
    assert json.loads(spec.read_text()) == {"entity": "team"}
    ((run, content),) = told
    assert (run.entity, run.project, run.job_type, run.directory) == ("team", "qhk", "report", tmp_path)
    assert content.artifacts == {"report": {"modules.html": page, "modules.csv": page.with_suffix(".csv")}}
