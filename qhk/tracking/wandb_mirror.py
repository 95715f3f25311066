"""Weights & Biases as a mirror of ``metrics.jsonl``. The one module that imports wandb, and only if asked.

Offline, one run is rebuilt from the record at the end, so that a run that was preempted and resumed is
still one curve. That happens in a child process with its own wandb settings: no account, no prompt, no
network, nothing on the console, and no file outside the run's directory, whatever the user's
environment says. Online, rows go out as they come.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.tracking.recorder import MetricSection, read_metrics

CHILD_TIMEOUT_S = 600


class WandbMode(StrEnum):
    """Whether and how a run is mirrored."""

    OFF = "off"
    OFFLINE = "offline"
    ONLINE = "online"


@dataclass(frozen=True, kw_only=True)
class MirrorRun:
    """What identifies a run in W&B (``study`` is its group, ``run_id`` its id) and where its files go."""

    project: str
    entity: str | None
    study: str
    name: str
    run_id: str
    config: Mapping[str, Any]
    directory: Path

    def init_arguments(self) -> dict[str, Any]:
        """Return the arguments of ``wandb.init`` that both modes share."""
        return {
            "project": self.project,
            "entity": self.entity,
            "group": self.study,
            "name": self.name,
            "job_type": "train",
            "id": self.run_id,
            "config": dict(self.config),
            "dir": str(self.directory),
        }


def mirror_run(
    metrics_path: Path,
    *,
    mode: WandbMode,
    project: str,
    entity: str | None,
    study: str,
    name: str,
    run_id: str,
    config: Mapping[str, Any],
    directory: Path,
) -> str | None:
    """Rebuild the offline run from ``metrics_path`` and return the command that uploads it, else None.

    The finished run replaces earlier offline runs of its id below ``directory/wandb``. Raises
    ``RuntimeError`` with the last line of the child process's errors where it fails; the record is untouched.
    """
    if mode is not WandbMode.OFFLINE:
        return None
    with tempfile.TemporaryDirectory(prefix="qhk-wandb-") as scratch:
        run = MirrorRun(
            project=project,
            entity=entity,
            study=study,
            name=name,
            run_id=run_id,
            config=config,
            directory=Path(scratch),
        )
        request = json.dumps({"metrics": str(metrics_path.resolve()), "run": asdict(run)}, default=str)
        child = subprocess.run(
            [sys.executable, "-m", "qhk.tracking.wandb_mirror"],
            input=request,
            capture_output=True,
            text=True,
            env=_child_environment(Path(scratch)),
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
        built = _offline_runs(Path(scratch), run_id)
        if child.returncode != 0 or len(built) != 1:
            words = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
            raise RuntimeError(f"the W&B mirror of {metrics_path} failed: {words[-1]}")
        for old in _offline_runs(directory, run_id):
            shutil.rmtree(old)
        target = directory.resolve() / "wandb" / built[0].name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(built[0], target)
    return f"wandb sync {shlex.quote(str(target))}"


def _offline_runs(directory: Path, run_id: str) -> list[Path]:
    return list((directory / "wandb").glob(f"offline-run-*-{run_id}"))


def _child_environment(scratch: Path) -> dict[str, str]:
    """Return the child's environment: no W&B variables of the user's, caches in ``scratch``, our modules."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    folders = {f"WANDB_{kind}_DIR": str(scratch / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    modules = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    # error reporting is wandb's own telemetry, which would use the network
    return {**kept, **folders, "WANDB_ERROR_REPORTING": "false", "PYTHONPATH": modules}


def _axis(section: MetricSection) -> str:
    return "cold_start/step" if section is MetricSection.COLD_START else "train/step"


def _define_axes(run: Any) -> None:
    for axis, names in (("train/step", "*"), ("cold_start/step", "cold_start/*")):
        run.define_metric(axis, hidden=True)
        run.define_metric(names, step_metric=axis)


def _logged(step: int, section: MetricSection, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return a row as W&B takes it: its axis, and the finite values."""
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return {**finite, _axis(section): step}


def _rebuild_offline(metrics_path: Path, run: MirrorRun) -> None:
    """Write one offline run from the record. Runs in the child process."""
    import wandb

    settings = wandb.Settings(
        console="off",
        silent=True,
        disable_git=True,
        save_code=False,
        symlink=False,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    live = wandb.init(mode="offline", settings=settings, **run.init_arguments())
    _define_axes(live)
    for index, row in enumerate(read_metrics(metrics_path)):
        live.log(_logged(row.step, row.section, row.metrics), step=index)
    live.finish()


class OnlineMirror:
    """A live W&B run that takes rows as the recorder does.

    A resumed run continues under its id. Steps recorded again after a resume are logged again: they
    share their place on the step axis, so the curve stays one.
    """

    def __init__(self, run: MirrorRun) -> None:
        """Open the run; raises ``UserError`` where no account is logged in, instead of prompting."""
        import wandb

        if not wandb.login(prompt=False, verify=False):
            raise UserError(
                "tracking=online needs an account: run `wandb login`, or use tracking=offline or none"
            )
        settings = wandb.Settings(console="off", disable_git=True, save_code=False)
        arguments = run.init_arguments()
        self._run = wandb.init(mode="online", resume="allow", settings=settings, **arguments)
        _define_axes(self._run)

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None:
        """Send one row; values that are not finite are left out."""
        self._run.log(_logged(step, section, metrics))

    def close(self) -> str:
        """Return the run's address, after everything was sent."""
        url = str(self._run.url)
        self._run.finish()
        return url


def main() -> None:
    """Run the child process: read its request from standard input, write the offline run."""
    request = json.load(sys.stdin)
    run = MirrorRun(**{**request["run"], "directory": Path(request["run"]["directory"])})
    _rebuild_offline(Path(request["metrics"]), run)


if __name__ == "__main__":
    main()
