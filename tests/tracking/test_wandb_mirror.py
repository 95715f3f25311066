"""The mirror: a real offline run without network or leftovers, and the live run against a stand-in."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qhk.tracking.recorder import MetricSection, MetricsRecorder
from qhk.tracking.wandb_mirror import MirrorRun, OnlineMirror, WandbMode, mirror_run

LOSS = "train/loss/total"


def recorded(directory: Path, steps: int) -> Path:
    recorder = MetricsRecorder(directory / "metrics.jsonl")
    recorder.record(step=300, section=MetricSection.COLD_START, metrics={"cold_start/loss": 1.5})
    for step in range(steps):
        recorder.record(
            step=step, section=MetricSection.TRAIN, metrics={LOSS: math.nan if step == 0 else step}
        )
    return recorder.path


def mirrored(path: Path, mode: WandbMode) -> str | None:
    return mirror_run(
        path,
        mode=mode,
        project="qhk",
        entity=None,
        study="first",
        name="q_hawkeye",
        run_id="abc123",
        config={"model": {"form": "tiny_form"}},
        directory=path.parent,
    )


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if "wandb" not in path.relative_to(root).parts[:2]}


def test_offline_run_is_rebuilt_in_the_run_directory_and_nowhere_else(
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
    path = recorded(run, steps=5)
    before = everything(tmp_path)
    mirrored(path, WandbMode.OFFLINE)
    MetricsRecorder(path).record(step=5, section=MetricSection.TRAIN, metrics={LOSS: 5.0})
    command = mirrored(path, WandbMode.OFFLINE)
    assert everything(tmp_path) == before
    assert capfd.readouterr() == ("", "")

    runs = list((run / "wandb").iterdir())
    assert len(runs) == 1 and runs[0].name.endswith("-abc123")
    assert command == f"wandb sync {runs[0]}"
    log = (runs[0] / "run-abc123.wandb").read_bytes()
    # values 1 to 5 and the summary's last one; the NaN of step 0 is left out
    assert log.count(LOSS.encode()) >= 5
    for part in (b"cold_start/loss", b"tiny_form", b"q_hawkeye", b"first", b"train/step"):
        assert part in log


def test_off_and_online_rebuild_nothing(tmp_path: Path) -> None:
    path = recorded(tmp_path, steps=1)
    assert mirrored(path, WandbMode.OFF) is None
    assert mirrored(path, WandbMode.ONLINE) is None
    assert not (tmp_path / "wandb").exists()


def test_failing_child_is_reported_in_one_line_and_keeps_the_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"no step": 1}\n')
    with pytest.raises(
        RuntimeError, match="the W&B mirror of .* failed: .*UserError: .* line 1 has no step"
    ) as caught:
        mirrored(path, WandbMode.OFFLINE)
    assert "\n" not in str(caught.value)
    assert path.exists() and not (tmp_path / "wandb").exists()


def test_nothing_of_wandb_is_imported_by_the_room() -> None:
    program = (
        "import sys, qhk.tracking.wandb_mirror, qhk.tracking.recorder, qhk.tracking.run_directory;"
        "sys.exit('wandb' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


class StandIn:
    """As much of wandb as a live run uses; keeps what it is told."""

    def __init__(self, *, logged_in: bool) -> None:
        self.logged_in = logged_in
        self.url = "https://wandb.example/run"
        self.init_arguments: dict[str, Any] = {}
        self.axes: list[tuple[str, str | None]] = []
        self.rows: list[dict[str, float]] = []
        self.finished = False

    def login(self, *, prompt: bool, verify: bool) -> bool:
        assert not prompt and not verify
        return self.logged_in

    def Settings(self, **values: Any) -> SimpleNamespace:
        return SimpleNamespace(**values)

    def init(self, **arguments: Any) -> StandIn:
        self.init_arguments = arguments
        return self

    def define_metric(self, name: str, *, step_metric: str | None = None, hidden: bool = False) -> None:
        self.axes.append((name, step_metric))

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.finished = True


def live_run(directory: Path) -> MirrorRun:
    return MirrorRun(
        project="qhk", entity="team", study="first", name="cell", run_id="abc", config={}, directory=directory
    )


def test_live_run_continues_under_its_id_on_its_own_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = StandIn(logged_in=True)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    mirror = OnlineMirror(live_run(tmp_path))
    assert {key: wandb.init_arguments[key] for key in ("id", "resume", "mode", "group", "entity")} == {
        "id": "abc", "resume": "allow", "mode": "online", "group": "first", "entity": "team",
    }  # fmt: skip
    mirror.record(step=4, section=MetricSection.TRAIN, metrics={LOSS: 0.5, "train/perception/kl": math.nan})
    mirror.record(step=9, section=MetricSection.COLD_START, metrics={"cold_start/loss": 1.0})
    assert wandb.rows == [{LOSS: 0.5, "train/step": 4}, {"cold_start/loss": 1.0, "cold_start/step": 9}]
    assert ("*", "train/step") in wandb.axes and ("cold_start/*", "cold_start/step") in wandb.axes
    assert mirror.close() == wandb.url and wandb.finished


def test_live_run_without_account_is_refused_not_prompted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = StandIn(logged_in=False)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(ValueError, match="tracking=online needs an account"):
        OnlineMirror(live_run(tmp_path))
    assert wandb.init_arguments == {}
