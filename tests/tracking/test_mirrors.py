"""Mirrors: real offline runs read back with W&B's own tool, the live run against a stand-in, and guards."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qhk.settings.root import TrackingSettings
from qhk.tracking import trackio_mirror, wandb_offline
from qhk.tracking.mirror import Ending, GuardedMirror, LocalMirror, MirrorContent, MirrorRun, Table
from qhk.tracking.mirrors import open_mirrors
from qhk.tracking.names import COLLAPSE_SIGNS
from qhk.tracking.recorder import MetricSection, MetricsRecorder
from qhk.tracking.status import RunState
from qhk.tracking.wandb_online import OnlineMirror

LOSS, EVAL = "train/loss/total", "eval/koniq/srcc"
DONE = Ending(state=RunState.DONE, cause="")
FAILED = Ending(state=RunState.FAILED, cause="out of memory")
STOPPED = Ending(state=RunState.PREEMPTED, cause="stopped by SIGTERM")
COLUMNS = ("image", "opinion", "score", "parsed", "completion")
ROWS = (("a.png", 3.5, 3.0, "yes", "blurred <answer>3</answer>"), ("b.png", 2.0, None, "no", "I cannot say"))


def recorded(directory: Path, steps: int) -> Path:
    recorder = MetricsRecorder(directory / "metrics.jsonl")
    recorder.record(step=300, section=MetricSection.COLD_START, metrics={"cold_start/loss": 1.5})
    add_steps(recorder, 1, steps)
    return recorder.path


def add_steps(recorder: MetricsRecorder, first: int, last: int) -> None:
    for step in range(first, last + 1):
        value = math.nan if step == 1 else float(step)
        recorder.record(step=step, section=MetricSection.TRAIN, metrics={LOSS: value})


def add_signs(recorder: MetricsRecorder, signs: dict[int, float]) -> None:
    for step, value in signs.items():
        recorder.record(step=step, section=MetricSection.VALIDATION, metrics={COLLAPSE_SIGNS: value})


def mirror_run(directory: Path) -> MirrorRun:
    return MirrorRun(
        project="qhk",
        entity=None,
        group="modules",
        name="full/seed0",
        job_type="train",
        run_id="abc123",
        tags=("q_hawkeye", "perception exact"),
        notes="every module earns its place",
        config={"model": {"form": "tiny_form"}, "paths": {"outputs": "/home/someone/outputs"}},
        directory=directory,
        outputs=directory / "outputs",
        metrics=directory / "metrics.jsonl",
    )


def content(directory: Path) -> MirrorContent:
    file = directory / "predictions" / "koniq.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"id": "a.png"}\n')
    return MirrorContent(
        summary={"before/koniq/srcc": 0.25, "before/koniq/plcc": math.nan},
        tables={"completions": Table(columns=COLUMNS, rows=ROWS)},
        artifacts={"predictions": {"step_000004/greedy/koniq.jsonl": file}},
    )


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if "wandb" not in path.relative_to(root).parts[:2]}


def read_back(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the records of an offline run by type, as W&B's own tool reads them."""
    tool = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    said = subprocess.run(tool, capture_output=True, text=True, check=False)
    if said.returncode and "executable" in said.stderr:
        pytest.skip(f"wandb's core cannot run here: {said.stderr.strip()}")
    assert said.returncode == 0, said.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for line in said.stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


def test_offline_run_of_a_killed_and_resumed_run_is_whole_and_lies_in_its_directory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home, run = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    run.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    # what a user may have set must not redirect or switch off the mirror
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DIR", str(home / "elsewhere"))
    path, told = recorded(run, steps=3), content(run)
    add_signs(MetricsRecorder(path), {2: 1.0, 3: 1.0})
    before = everything(tmp_path)
    wandb_offline.rebuild(mirror_run(run), told, FAILED)
    (failed,) = (run / "wandb").glob("offline-run-*")
    found = read_back(failed)
    assert [(alert["title"], alert["text"], alert["level"]) for alert in found["alert"]] == [
        ("signs of collapse", "step 2: 1 sign of collapse; run.log and status.json say which", "WARN"),
        ("run failed", "out of memory", "ERROR"),
    ]
    assert found["exit"][0]["exit_code"] == 1
    # steps 2 and 3 lie behind the checkpoint and are recorded again
    resumed = MetricsRecorder(path)
    resumed.cut_after(1, sections=[MetricSection.TRAIN, MetricSection.VALIDATION])
    (run / "metrics.dropped.jsonl").unlink()
    add_steps(resumed, 2, 4)
    resumed.record(step=4, section=MetricSection.EVAL, metrics={EVAL: 0.75})
    line = wandb_offline.rebuild(mirror_run(run), told, DONE)
    assert everything(tmp_path) == before
    assert capfd.readouterr() == ("", "")

    (built,) = (run / "wandb").glob("offline-run-*")
    assert built.name.endswith("-abc123") and built != failed
    assert line == f"W&B (offline): to upload, run  wandb sync {built}"
    found = read_back(built)
    (about,) = found["run"]
    assert {key: about[key] for key in ("run_id", "display_name", "run_group", "job_type", "project")} == {
        "run_id": "abc123", "display_name": "full/seed0", "run_group": "modules", "job_type": "train",
        "project": "qhk",
    }  # fmt: skip
    assert about["tags"] == ["q_hawkeye", "perception exact"]
    assert about["notes"] == "every module earns its place"
    assert about["config"]["update"]["model"] == {"form": "tiny_form"}
    items = [record["item"] for record in found["history"]]
    assert [item["cold_start/step"] for item in items if "cold_start/step" in item] == [300]
    assert [item["train/step"] for item in items if "train/step" in item] == [1, 2, 3, 4, 4]
    assert [item.get(LOSS) for item in items[1:5]] == [None, 2, 3, 4]
    assert [item["_step"] for item in items] == list(range(len(items)))
    summary = {key: value for record in found["summary"] for key, value in record["update"].items()}
    assert (summary["before/koniq/srcc"], summary[EVAL]) == (0.25, 0.75)
    assert "before/koniq/plcc" not in summary
    assert found["exit"][0]["exit_code"] == 0
    assert "alert" not in found

    (table,) = built.glob("files/media/table/completions_*.table.json")
    shown = json.loads(table.read_text())
    assert (tuple(shown["columns"]), [tuple(row) for row in shown["data"]]) == (COLUMNS, [*ROWS])
    artifacts = {record["type"]: record["manifest"]["contents"][0] for record in found["artifact"]}
    assert artifacts["predictions"]["path"] == "step_000004/greedy/koniq.jsonl"
    assert Path(artifacts["predictions"]["local_path"]) == run / "predictions" / "koniq.jsonl"
    # what an upload reads is still there when the child process is gone
    assert all(Path(artifact["local_path"]).is_file() for artifact in artifacts.values())
    everything_said = json.dumps(found)
    assert "someone" not in everything_said and "requirements.txt" not in everything_said


def test_a_run_that_was_asked_to_stop_leaves_local_mirrors_to_its_resumption(tmp_path: Path) -> None:
    made: list[Ending] = []

    def rebuild(run: MirrorRun, content: MirrorContent, ending: Ending) -> str:
        made.append(ending)
        return "here"

    mirror = LocalMirror(mirror_run(tmp_path), rebuild)
    assert [mirror.close(MirrorContent(), ending) for ending in (STOPPED, FAILED, DONE)] == [
        "",
        "here",
        "here",
    ]
    assert made == [FAILED, DONE]


def test_failing_child_is_told_in_one_line_and_keeps_the_record(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"no step": 1}\n')
    said: list[str] = []
    tracking = TrackingSettings(wandb="offline", project="qhk", entity=None)
    (mirror,) = open_mirrors(tracking, mirror_run(tmp_path), warn=said.append)
    assert mirror.close(MirrorContent, DONE) == ""
    (line,) = said
    assert line.startswith("the W&B mirror was not written (") and "\n" not in line
    assert "line 1 has no step" in line and line.endswith("metrics.jsonl holds everything")
    assert (tmp_path / "metrics.jsonl").exists() and not (tmp_path / "wandb").exists()


def broken(*_: Any, **__: Any) -> Any:
    raise OSError("the network\nis gone")


@pytest.mark.parametrize(
    "opened",
    [
        broken,
        lambda: SimpleNamespace(record=broken, close=lambda *_: "here"),
        lambda: SimpleNamespace(record=lambda **_: None, close=broken),
    ],
    ids=["open", "record", "close"],
)
def test_a_mirror_that_fails_is_told_once_and_ends_nothing(opened: Callable[[], Any]) -> None:
    said: list[str] = []
    mirror = GuardedMirror("W&B", opened, warn=said.append)
    for step in range(2):
        mirror.record(step=step, section=MetricSection.TRAIN, metrics={LOSS: 1.0})
    assert mirror.close(MirrorContent, DONE) == ""
    assert said == ["the W&B mirror was not written (the network is gone); metrics.jsonl holds everything"]


def test_content_that_cannot_be_read_is_told_once_and_ends_nothing() -> None:
    said: list[str] = []
    mirror = GuardedMirror("W&B", lambda: SimpleNamespace(close=lambda *_: "here"), warn=said.append)
    assert mirror.close(broken, DONE) == "" and len(said) == 1


@pytest.mark.parametrize(
    ("keys", "number"),
    [({"wandb": "off"}, 0), ({"wandb": "offline"}, 1), ({"wandb": "off", "trackio": True}, 1)],
)
def test_settings_choose_the_mirrors(
    keys: dict[str, Any], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    tracking = TrackingSettings(project="qhk", entity=None, **keys)
    assert len(open_mirrors(tracking, mirror_run(tmp_path), warn=pytest.fail)) == number


def test_a_mirror_whose_library_is_missing_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tracking = TrackingSettings(wandb="off", project="qhk", entity=None, trackio=True)
    with pytest.raises(ValueError, match=r"tracking.trackio: .* pip install 'qhk\[trackio\]'"):
        open_mirrors(tracking, mirror_run(tmp_path), warn=pytest.fail)


def test_nothing_of_the_mirrors_libraries_is_imported_by_the_room() -> None:
    program = (
        "import sys, qhk.tracking.mirrors, qhk.tracking.recorder, qhk.tracking.run_directory;"
        "sys.exit(bool({'wandb', 'trackio', 'pandas'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


class StandIn:
    """As much of wandb as a live run uses; keeps what it is told. ``step`` is what the server has."""

    def __init__(self, *, logged_in: bool = True, step: int = 0) -> None:
        self.logged_in, self.step = logged_in, step
        self.url, self.id = "https://wandb.example/run", "abc123"
        self.init_arguments: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self.axes: list[tuple[str, str | None]] = []
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.summary: dict[str, float] = {}
        self.alerts: list[str] = []
        self.artifacts: list[Any] = []
        self.exit_code: int | None = None

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt and not verify
        return self.logged_in

    def Settings(self, **values: Any) -> SimpleNamespace:
        self.settings = values
        return SimpleNamespace(**values)

    def Table(self, *, columns: list[str], data: list[list[Any]]) -> Any:
        return columns, data

    def Artifact(self, name: str, *, type: str) -> Any:
        return SimpleNamespace(name=name, add_file=lambda path, **_: self.artifacts.append((name, path)))

    def init(self, **arguments: Any) -> StandIn:
        self.init_arguments = arguments
        return self

    def define_metric(self, name: str, *, step_metric: str | None = None, hidden: bool = False) -> None:
        self.axes.append((name, step_metric))

    def log(self, row: dict[str, Any], *, step: int | None = None) -> None:
        self.rows.append((step, row))

    def log_artifact(self, artifact: Any) -> None:
        assert artifact.name == "predictions-abc123"

    def alert(self, *, title: str, text: str, level: str) -> None:
        self.alerts.append(f"{level}: {title}: {text}")

    def finish(self, *, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return stand_in


def test_live_run_gets_the_rows_of_the_record_on_their_own_axes(tmp_path: Path, wandb: StandIn) -> None:
    mirror = OnlineMirror(replace(mirror_run(tmp_path), entity="team"))
    keys = ("id", "resume", "mode", "group", "entity", "job_type", "notes")
    assert {key: wandb.init_arguments[key] for key in keys} == {
        "id": "abc123", "resume": "allow", "mode": "online", "group": "modules", "entity": "team",
        "job_type": "train", "notes": "every module earns its place",
    }  # fmt: skip
    assert "someone" not in str(wandb.init_arguments["config"])
    assert wandb.settings["x_disable_meta"] and wandb.settings["disable_git"]
    recorder = MetricsRecorder(tmp_path / "metrics.jsonl")
    for step, section, metrics in (
        (9, MetricSection.COLD_START, {"cold_start/loss": 1.0}),
        (4, MetricSection.TRAIN, {LOSS: 0.5, "train/perception/kl": math.nan}),
    ):
        recorder.record(step=step, section=section, metrics=metrics)
        mirror.record(step=step, section=section, metrics=metrics)
    assert wandb.rows == [
        (0, {"cold_start/loss": 1.0, "cold_start/step": 9}), (1, {LOSS: 0.5, "train/step": 4}),
    ]  # fmt: skip
    axes = {name: axis for name, axis in wandb.axes if axis is not None}
    assert axes["train/*"] == axes["eval/*"] == axes["time/*"] == "train/step"
    # of two patterns that fit one name, W&B takes any
    assert axes["cold_start/*"] == "cold_start/step" and "*" not in axes
    assert mirror.close(content(tmp_path), DONE) == f"W&B: {wandb.url}"
    assert wandb.rows[2:] == [(None, {"completions": ([*COLUMNS], [[*row] for row in ROWS])})]
    assert wandb.summary == {"before/koniq/srcc": 0.25} and len(wandb.artifacts) == 1
    assert (wandb.exit_code, wandb.alerts) == (0, [])


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(2, [(2, 2), (3, 3), (4, 4)]), (4, [(4, 4)])],
    ids=["killed before it had sent all", "checkpoint behind what was sent"],
)
def test_resumed_live_run_has_no_step_twice_and_lacks_none(
    tmp_path: Path, wandb: StandIn, sent: int, expected: list[tuple[int, int]]
) -> None:
    path, wandb.step = recorded(tmp_path, steps=3), sent  # four rows, of which the server has ``sent``
    mirror, recorder = OnlineMirror(mirror_run(tmp_path)), MetricsRecorder(path)
    recorder.cut_after(2, sections=[MetricSection.TRAIN])
    for step in (3, 4):
        recorder.record(step=step, section=MetricSection.TRAIN, metrics={LOSS: float(step)})
        mirror.record(step=step, section=MetricSection.TRAIN, metrics={LOSS: float(step)})
    assert [(index, row["train/step"]) for index, row in wandb.rows] == expected


def test_live_run_alerts_where_signs_of_collapse_are_news(tmp_path: Path, wandb: StandIn) -> None:
    """Not again while they last, nor of rows that an earlier process of the run has sent."""
    path = recorded(tmp_path, steps=1)
    add_signs(MetricsRecorder(path), {1: 1.0})
    wandb.step = 3
    mirror, recorder = OnlineMirror(mirror_run(tmp_path)), MetricsRecorder(path)
    for step, signs in ((2, 1.0), (3, 2.0), (4, 0.0), (5, 1.0)):
        for section, metrics in (
            (MetricSection.TRAIN, {LOSS: 0.5}), (MetricSection.VALIDATION, {COLLAPSE_SIGNS: signs}),
        ):  # fmt: skip
            recorder.record(step=step, section=section, metrics=metrics)
            mirror.record(step=step, section=section, metrics=metrics)
    said = "of collapse; run.log and status.json say which"
    assert wandb.alerts == [
        f"WARN: signs of collapse: step {step}: {signs} {said}"
        for step, signs in ((3, "2 signs"), (5, "1 sign"))
    ]


def test_live_run_that_fails_alerts_and_keeps_its_place_for_a_resumption(
    tmp_path: Path, wandb: StandIn
) -> None:
    recorded(tmp_path, steps=2)
    OnlineMirror(mirror_run(tmp_path)).close(content(tmp_path), FAILED)
    # the rows that the process did not come to record are sent; a table would take the next row's place
    assert [index for index, _ in wandb.rows] == [0, 1, 2] and not wandb.artifacts
    assert (wandb.exit_code, wandb.alerts) == (1, ["ERROR: run failed: out of memory"])


def test_live_run_without_account_is_refused_not_prompted(tmp_path: Path, wandb: StandIn) -> None:
    wandb.logged_in = False
    tracking = TrackingSettings(wandb="online", project="qhk", entity=None)
    with pytest.raises(ValueError, match="tracking=online needs an account"):
        open_mirrors(tracking, mirror_run(tmp_path), warn=pytest.fail)
    assert wandb.init_arguments == {}


def test_trackio_has_one_run_of_a_directory_after_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackio")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TRACKIO_DIR", str(home / "elsewhere"))
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/board")
    path, told = recorded(tmp_path, steps=2), content(tmp_path)
    trackio_mirror.rebuild(mirror_run(tmp_path), told, FAILED)
    add_steps(MetricsRecorder(path), 3, 3)
    add_signs(MetricsRecorder(path), {3: 2.0})
    line = trackio_mirror.rebuild(mirror_run(tmp_path), told, DONE)
    board = tmp_path / "outputs" / "trackio"
    assert line == f"trackio: TRACKIO_DIR={board} trackio show --project qhk"
    assert not any(home.iterdir()) and capfd.readouterr() == ("", "")
    program = (
        "import json; from trackio import Api; from trackio.sqlite_storage import SQLiteStorage as S;"
        "runs = [[r.name, r.config, S.get_logs('qhk', r.name), r.alerts()] for r in Api().runs('qhk')];"
        "print(json.dumps(runs))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(board), "TRACKIO_SPACE_ID": ""}
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    ((name, config, logs, alerts),) = json.loads(said.stdout.splitlines()[-1])
    assert name == "modules/full/seed0"
    assert [alert["title"] for alert in alerts] == ["signs of collapse"]
    assert (config["notes"], config["summary"]["before/koniq/srcc"]) == ("every module earns its place", 0.25)
    assert [(row["step"], row[LOSS]) for row in logs if LOSS in row] == [(2, 2.0), (3, 3.0)]
    assert [row["cold_start/loss"] for row in logs if "cold_start/loss" in row] == [1.5]
    (table,) = [row["completions"] for row in logs if "completions" in row]
    assert table["_value"][1]["completion"] == "I cannot say"
