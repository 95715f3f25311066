"""Sweeps whose runs are a few lines of Python: what is tested is who starts, watches and records them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qhk.cli.job import prepare_seeds
from qhk.config.catalogue import config_root, read_catalogue
from qhk.settings import Settings
from qhk.settings.sweep import LocalLauncherSettings, MachineSettings, SlurmLauncherSettings
from qhk.sweep.manifest import Manifest, SweepRun, freeze_run, planned_as_run, write_manifest
from qhk.sweep.plan import PlannedRun, plan_run
from qhk.tracking.status import STATUS_FILE, RunState, present_status, write_status

MACHINE = MachineSettings(name="test", compute_tflop_s=1.0, memory_tb_s=1.0, efficiency=0.5)
HERE = LocalLauncherSettings(form="local", jobs=2, processes=1, gpus="none", grace_s=10.0, machine=MACHINE)
ON_SLURM = SlurmLauncherSettings(
    form="slurm", wait=False, partition="lab", account=None, qos=None, constraint=None, exclude=None,
    nodelist=None, nodes=1, tasks_per_node=1, gpus_per_node=0, cpus_per_task=1, mem_gb=1.0,
    timeout_min=60, signal_delay_s=30, max_num_timeout=2, array_parallelism=4,
    setup=["export FROM_SETUP=yes"], srun_args=["--kill-on-bad-exit=1"], additional_parameters={},
    machine=MACHINE,
)  # fmt: skip
"""One processor per run, and time limits at which every signal is not yet a time-out."""

Build = Callable[..., Manifest]


@pytest.fixture(scope="session")
def settings() -> Settings:
    return prepare_seeds(["name=base"], [0], read_catalogue(config_root()))[0]


def place(settings: Settings, outputs: Path, *, name: str, seed: int = 0, **changes: object) -> Settings:
    """The settings at another place, and with other values below ``optimizer``."""
    paths = settings.paths.model_copy(update={"outputs": str(outputs)})
    optimizer = settings.optimizer.model_copy(update=changes)
    update = {"paths": paths, "study": "s", "name": name, "seed": seed, "optimizer": optimizer}
    return settings.model_copy(update=update)


def planned(settings: Settings, outputs: Path, name: str, *, seed: int = 0, **changes: object) -> PlannedRun:
    return plan_run(cell=name, changes=(), settings=place(settings, outputs, name=name, seed=seed, **changes))


@pytest.fixture
def build(settings: Settings, tmp_path: Path) -> Build:
    """A sweep on disk of the given cells, one run each, started in the test's directory."""

    def make(*cells: str, seeds: Sequence[int] = (0,)) -> Manifest:
        outputs, runs = tmp_path / "outputs", list[SweepRun]()
        manifest = Manifest(
            folder=outputs / "sweeps" / "s",
            cwd=tmp_path,
            overrides=(),
            launcher=HERE,
            search=None,
            runs=(),
        )
        for number, cell in enumerate(cells):
            for seed in seeds:
                plan = planned(settings, outputs, cell, seed=seed, lr=1e-4 * (number + 1))
                runs.append(planned_as_run(replace(plan, code="any")))
                freeze_run(manifest, runs[-1], plan.settings)
        manifest = replace(manifest, runs=tuple(runs))
        write_manifest(manifest)
        return manifest

    return make


def say(
    run: SweepRun, state: RunState, *, step: int = 0, cause: str = "", total: int | None = 10, **changes: Any
) -> None:
    """Writes a run's status as its own process would, but for ``changes`` of its fields."""
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / "run_id").write_text(run.run_id)
    status = present_status(state=state, step=step, cause=cause, total_steps=total)
    status = replace(status, **changes)
    write_status(run.directory / STATUS_FILE, status)


STUB = """
import os, pathlib, signal, sys, time
from qhk.tracking.status import RunState, present_status, write_status
directory, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
def say(state, cause=""):
    write_status(directory / "status.json", present_status(state=state, step=3, cause=cause))
def stop(number, frame):
    say(RunState.PREEMPTED, "by signal")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
say(RunState.RUNNING)
with (directory / "starts").open("a") as file:
    file.write(f"{time.monotonic()} {os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ.get('RANK')}\\n")
if mode == "sleep":
    time.sleep(60)
elif mode == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif mode == "refuse":
    print("qhk: data: nothing there", file=sys.stderr)
    sys.exit(2)
elif mode == "fail":
    say(RunState.FAILED, "loss is NaN")
    sys.exit(1)
else:
    time.sleep(0.3)
    say(RunState.DONE)
"""


def stub_command(modes: dict[str, str]) -> Callable[[Manifest, SweepRun], list[str]]:
    """In place of training: each cell's process does as its mode says, "done" where none is given."""
    return lambda manifest, run: [
        sys.executable,
        "-c",
        STUB,
        str(run.directory),
        modes.get(run.cell, "done"),
    ]
