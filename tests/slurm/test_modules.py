"""The ablation on a real SLURM, with everything that goes wrong there, ends as an undisturbed one does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from qhk.sweep.manifest import Manifest, read_manifest
from qhk.sweep.states import RunView
from qhk.tracking.status import RunState, read_status
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ROOT
from tests.slurm.test_jobs import until
from tests.training.conftest import SMALL
from tests.training.ending_reward import PER_STEP
from tests.untimed import untimed, untimed_row

pytestmark = pytest.mark.slurm

STEPS = 8
LAUNCHER = (
    "hydra/launcher=slurm",
    "hydra.launcher.gpus_per_node=0",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
    "hydra.launcher.timeout_min=60",
    "hydra.launcher.signal_delay_s=60",
)
SEED = "seed=0"

Qhk = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def qhk(slurm: Cluster, tmp_path: Path) -> Qhk:
    """Runs a command line in a process of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "qhk.cli.main", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=900)

    return run


def sweep_words(flag: Path, gate: Path) -> list[str]:
    """Two leave-one-out cells, the full form, the baseline, and a cell that fails while the flag is there.

    Each stops before its third step until the gate is open.
    """
    probe = "tests.slurm.probe"
    broken = [
        f"+reward.terms.broken._target_={probe}.fails_while",
        "+reward.terms.broken.weight=1.0",
        f"+reward.terms.broken.flag={flag}",
    ]
    held = [
        f"+reward.terms.held._target_={probe}.held",
        "+reward.terms.held.weight=1.0",
        f"+reward.terms.held.gate={gate}",
        f"+reward.terms.held.free={2 * PER_STEP}",
    ]
    return [
        "sweep=modules",
        "study=modules",
        "~sweep.cells.without_original_entropy",
        "~sweep.cells.without_degraded_entropy",
        "+sweep.cells.broken=[" + ",".join(f'"{word}"' for word in broken) + "]",
        *SMALL,
        *held,
        f"training.duration.steps={STEPS}",
        SEED,
    ]


def outcome(directory: Path) -> dict[str, Any]:
    """All that a finished run measured, without times, and its last weights."""
    results = json.loads((directory / "results.json").read_text())
    weights = load_file(next((directory / "checkpoints/last").resolve().glob("*.safetensors")))
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {
        "rows": [untimed_row(row) for row in results["rows"]],
        "id": results["run_id"],
        "metrics": [untimed(row) for row in metrics],
        "weights": weights,
    }


def differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """A line for each place where two records differ, in their order."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from differences(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{place}[{index}]")
    elif isinstance(one, torch.Tensor):
        if not torch.equal(one, other):
            yield f"{place}: by at most {float((one.double() - other.double()).abs().max())}"
    elif one != other:
        yield f"{place}: {one} and {other}"


def assert_same(one: dict[str, Any], other: dict[str, Any], cell: str) -> None:
    found = list(differences(one, other))
    first = sorted(found, key=lambda line: not line.startswith(".metrics"))[:12]
    assert not found, f"{cell} differs in {len(found)} places, first\n" + "\n".join(first)


def stop(view: RunView, gate: Path, signal_name: str) -> None:
    """Lets a run go on that has been signalled, once it knows."""
    end = time.monotonic() + 60
    while f"{signal_name}: stopping" not in view.run.log.read_text():
        assert time.monotonic() < end, f"{view.run.label} never heard of {signal_name}"
        time.sleep(0.1)
    assert view.status is not None
    (gate / str(view.status.pid)).touch()


def at_work(manifest: Manifest, cell: str, gate: Path) -> RunView:
    """The cell's view once its run waits in its third step."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        view = until(manifest, cell, RunState.RUNNING, RunState.PENDING)
        if view.status is not None and (gate / f"{view.status.pid}.waits").exists():
            return view
        time.sleep(0.2)
    raise AssertionError(f"{cell} did not come to its third step")


def test_modules_survive_signal_kill_failure_and_cancelling(slurm: Cluster, qhk: Qhk, tmp_path: Path) -> None:
    flag, gate = tmp_path / "broken", tmp_path / "gate"
    flag.touch()
    gate.mkdir()
    words = sweep_words(flag, gate)
    submitted = qhk("train", *words, *LAUNCHER)
    assert submitted.returncode == 0 and "5 runs submitted" in submitted.stdout, submitted.stderr
    manifest = read_manifest(tmp_path / "outputs/sweeps/modules")

    view = at_work(manifest, "full", gate)
    slurm.client("scancel", "--signal=USR2", view.job)
    stop(view, gate, "SIGUSR2")
    assert until(manifest, "full", RunState.PREEMPTED).cause.startswith(
        "stopped by SIGUSR2; checkpointed at step "
    )
    killed = at_work(manifest, "without_uncertainty", gate)
    assert killed.status is not None
    os.kill(killed.status.pid, signal.SIGKILL)
    assert "SIGKILL" in until(manifest, "without_uncertainty", RunState.FAILED).cause
    view = at_work(manifest, "without_perception", gate)
    assert qhk("sweep", "cancel", "modules", "cell=without_perception").returncode == 0
    stop(view, gate, "SIGTERM")
    until(manifest, "without_perception", RunState.CANCELLED, active=False)
    assert "broken by design" in until(manifest, "broken", RunState.FAILED).cause
    (gate / "all").touch()
    until(manifest, "full", RunState.DONE, seconds=180)
    until(manifest, "grpo_baseline", RunState.DONE, seconds=180)

    status = qhk("sweep", "status", "modules")
    print(status.stdout)
    assert status.returncode == 1
    assert "2 failed" in status.stdout and "1 cancelled" in status.stdout and "2 done" in status.stdout
    for row in ("full", "grpo_baseline"):
        assert f"{row} " in status.stdout
    logs = qhk("sweep", "logs", "modules").stdout
    assert "Traceback" in logs and "RuntimeError: broken by design" in logs

    flag.unlink()
    untouched = (manifest.runs[0].directory / "console.log").read_bytes()
    resumed = qhk("sweep", "resume", "modules")
    assert "3 runs submitted" in resumed.stdout, resumed.stderr
    for cell in ("without_uncertainty", "without_perception", "broken"):
        until(manifest, cell, RunState.DONE, seconds=180)
    status = qhk("sweep", "status", "modules")
    print(status.stdout)
    assert status.returncode == 0 and "5 done" in status.stdout
    assert (manifest.runs[0].directory / "console.log").read_bytes() == untouched
    assert "nothing to start" in qhk("sweep", "resume", "modules").stdout

    calm = tmp_path / "calm"
    shutil.copytree(tmp_path / "outputs/cache", calm / "cache")
    local = qhk("train", *words, f"paths.outputs={calm}", "hydra.launcher.jobs=2")
    assert local.returncode == 0, local.stderr
    for run in manifest.runs:
        assert_same(outcome(run.directory), outcome(calm / "modules" / run.cell / "seed0"), run.cell)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process computes."""
    folder = tmp_path_factory.mktemp("single")
    words = ["train", "-m", "study=two", "name=single", SEED, *SMALL, "hydra.launcher.jobs=1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "qhk.cli.main", *words]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True, timeout=300)
    return outcome(folder / "outputs/two/single/seed0")


@pytest.mark.parametrize(
    ("where", "nodes"),
    [
        pytest.param(["hydra.launcher.tasks_per_node=2"], 1, id="one node"),
        pytest.param(
            ["hydra.launcher.nodes=2", "hydra.launcher.partition=pair"],
            2,
            id="two nodes",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_tasks_train_one_policy(
    slurm: Cluster, qhk: Qhk, tmp_path: Path, single: dict[str, Any], where: list[str], nodes: int
) -> None:
    words = ["study=two", "name=ddp", SEED, *SMALL, "distributed=ddp", *where]
    done = qhk("train", "-m", *words, *LAUNCHER, "hydra.launcher.wait=true")
    directory = tmp_path / "outputs/two/ddp/seed0"
    assert done.returncode == 0, done.stdout + (directory / "console.log").read_text()
    assert (directory / "console.rank1.log").exists()
    status = read_status(directory / "status.json")
    assert status is not None and status.slurm_job is not None
    assert f"NumNodes={nodes} " in slurm.client("scontrol", "-o", "show", "job", status.slurm_job)
    found = outcome(directory)
    assert found["id"] == single["id"]
    for name, weight in found["weights"].items():
        torch.testing.assert_close(weight, single["weights"][name], atol=1e-4, rtol=1e-3)
