"""Sweeps whose runs are a few lines of Python instead of training, to test what starts and records them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qhk.settings.root import Settings
from qhk.settings.sweep import LocalLauncherSettings, MachineSettings, SlurmLauncherSettings
from qhk.sweep.manifest import Manifest, SweepRun
from qhk.sweep.plan import PlannedRun, plan_run
from qhk.tracking.status import STATUS_FILE, RunState, current_status, write_status

MakeSweep = Callable[..., Manifest]

MACHINE = MachineSettings(name="test", compute_tflop_s=1.0, memory_tb_s=1.0, efficiency=0.5)
LOCAL = LocalLauncherSettings(form="local", jobs=2, processes=1, gpus="none", grace_s=10.0, machine=MACHINE)
SLURM = SlurmLauncherSettings(
    form="slurm", wait=False, partition="lab", account=None, qos=None, constraint=None, exclude=None,
    nodelist=None, nodes=1, tasks_per_node=1, gpus_per_node=0, cpus_per_task=1, mem_gb=1.0,
    timeout_min=60, signal_delay_s=30, max_num_timeout=2, array_parallelism=4,
    setup=["export FROM_SETUP=yes"], srun_args=["--kill-on-bad-exit=1"], additional_parameters={},
    machine=MACHINE,
)  # fmt: skip
"""One processor per run, and time limits at which every signal is not yet a time-out."""


def settings_at(
    settings: Settings, outputs: Path, *, name: str, seed: int = 0, **changes: object
) -> Settings:
    """The settings at another place, and with other values below ``optimizer``."""
    paths = settings.paths.model_copy(update={"outputs": str(outputs)})
    optimizer = settings.optimizer.model_copy(update=changes)
    update = {"paths": paths, "study": "s", "name": name, "seed": seed, "optimizer": optimizer}
    return settings.model_copy(update=update)


def planned(settings: Settings, outputs: Path, name: str, *, seed: int = 0, **changes: object) -> PlannedRun:
    return plan_run(
        cell=name, changes=(), settings=settings_at(settings, outputs, name=name, seed=seed, **changes)
    )


def set_status(
    run: SweepRun, state: RunState, *, step: int = 0, cause: str = "", total: int | None = 10, **changes: Any
) -> None:
    """Writes a run's status as its own process would, but for ``changes`` of its fields."""
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / "run_id").write_text(run.run_id)
    status = current_status(state=state, step=step, cause=cause, total_steps=total)
    status = replace(status, **changes)
    write_status(run.directory / STATUS_FILE, status)


FAKE_RUN = """
import os, pathlib, signal, sys, time
from qhk.tracking.status import RunState, current_status, write_status
directory, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
def status(state, cause=""):
    write_status(directory / "status.json", current_status(state=state, step=3, cause=cause))
def stop(number, frame):
    status(RunState.PREEMPTED, "by signal")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
status(RunState.RUNNING)
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
    status(RunState.FAILED, "loss is NaN")
    sys.exit(1)
else:
    time.sleep(0.3)
    status(RunState.DONE)
"""


def fake_command(modes: dict[str, str]) -> Callable[[Manifest, SweepRun], list[str]]:
    """In place of training: each cell's process does as its mode says, "done" where none is given."""
    return lambda manifest, run: [
        sys.executable,
        "-c",
        FAKE_RUN,
        str(run.directory),
        modes.get(run.cell, "done"),
    ]
