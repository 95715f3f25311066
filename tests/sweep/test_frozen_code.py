"""The process of a run runs what was frozen, a user's own rewards included, and refuses anything else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from qhk.cli import cell
from qhk.config.catalogue import Catalogue
from qhk.sweep.launch import freeze
from qhk.sweep.manifest import Manifest
from qhk.sweep.plan import SweepPlan, plan_multirun
from qhk.sweep.process import run_command, run_environment
from qhk.sweep.sharing import share_plan
from qhk.tracking.recorder import read_metrics
from tests.sweep.builders import MakeSweep
from tests.training.conftest import SMALL

ROOT = Path(__file__).parents[2]
REWARD = """
from cell_helper import VALUE
from qhk.types import Completion, Example

def mine(completion: Completion, example: Example, *, scale: float) -> float:
    return scale * VALUE
"""
WORDS = (
    *SMALL,
    "cold_start.steps=4",
    "cold_start.validate_every=4",
    "training.duration.steps=1",
    "+reward.terms.mine={_target_: cell_reward.mine, weight: 1.0, scale: 2.0}",
    "study=own",
    "name=own",
)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue) -> Callable[[], SweepPlan]:
    """Plans a run whose reward lies in the current directory, which is on the import path."""
    (tmp_path / "cell_reward.py").write_text(REWARD)
    (tmp_path / "cell_helper.py").write_text("VALUE = 3.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return lambda: plan_multirun(WORDS, catalogue)


def no_progress(label: str) -> Any:
    return nullcontext(lambda done, total: None)


def _run(manifest: Manifest) -> subprocess.CompletedProcess[str]:
    run = manifest.runs[0]
    return subprocess.run(
        run_command(manifest, run),
        cwd=manifest.cwd,
        env={**os.environ, **run_environment(manifest, run)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_own_rewards_are_frozen_and_compared(plan: Callable[[], SweepPlan], tmp_path: Path) -> None:
    manifest = freeze(plan(), tmp_path / "outputs/sweeps/own", no_progress)
    run, helper = manifest.runs[0], tmp_path / "cell_helper.py"
    helper.write_text("VALUE = 5.0\n")
    done = _run(manifest)
    assert done.returncode == 0, done.stderr
    rewards = [
        row.metrics.get("train/reward/mine/mean") for row in read_metrics(run.directory / "metrics.jsonl")
    ]
    assert 6.0 in rewards and 10.0 not in rewards

    with pytest.raises(ValueError, match="was finished by other code"):
        share_plan(plan(), no_progress)
    helper.write_text("VALUE = 3.0\n")
    assert share_plan(plan(), no_progress)[0].state == "done"

    picture = next(path for path in Path("outputs/cache").rglob("*spaq*/**/*.jpg"))
    whole = picture.read_bytes()
    picture.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="is finished, but data miniature_spaq changed since"):
        share_plan(plan(), no_progress)
    picture.write_bytes(whole)
    assert share_plan(plan(), no_progress)[0].state == "done"

    (manifest.code_folder(run) / "cell_helper.py").write_text("VALUE = 7.0\n")
    refused = _run(manifest)
    assert (
        refused.returncode == 2 and "cell_reward has changed since the sweep was submitted" in refused.stderr
    )


def test_a_run_refuses_other_code_than_was_submitted(
    make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_sweep("a")
    assert cell.main([str(manifest.config(manifest.runs[0])), "0" * 64]) == 2
    err = capsys.readouterr().err
    assert "has changed since the sweep was submitted (000000000000" in err and "code=current" in err
    assert not Path(manifest.runs[0].directory).exists()
