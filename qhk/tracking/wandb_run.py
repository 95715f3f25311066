"""What both mirrors in Weights & Biases tell it of a run; ``wandb`` is imported only where one is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qhk.tracking.mirror import CollapseAlerts, Ending, MirrorContent, MirrorRun
from qhk.tracking.names import METRICS
from qhk.tracking.recorder import MetricSection
from qhk.tracking.status import RunState

SETTINGS: Mapping[str, Any] = {
    "console": "off",
    "disable_git": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""Nothing of the machine, the user, the code or the console goes to W&B; ``provenance.json`` has it."""

PLACES = ("paths", "dataset")
"""Nodes of a config that say where things lie on the user's disks."""


def has_account() -> bool:
    """Return whether an account of W&B is logged in; nothing is asked, of the user or over the network."""
    import wandb

    return bool(wandb.login(prompt=False, verify=False))


def init_arguments(run: MirrorRun) -> dict[str, Any]:
    """Return the arguments of ``wandb.init`` that both modes share."""
    return {
        "project": run.project,
        "entity": run.entity,
        "group": run.group,
        "name": run.name,
        "job_type": run.job_type,
        "id": run.run_id,
        "tags": list(run.tags),
        "notes": run.notes,
        "config": {key: value for key, value in run.config.items() if key not in PLACES},
        "dir": str(run.directory),
    }


def define_axes(live: Any) -> None:
    """Tell W&B which curves run over training steps and which over those of the cold start.

    No two patterns fit one name: which of them W&B would take is left to chance.
    """
    for axis in ("train/step", "cold_start/step"):
        live.define_metric(axis, hidden=True)
    for part in dict.fromkeys(metric.name.partition("/")[0] for metric in METRICS):
        live.define_metric(f"{part}/*", step_metric=_axis(part))


def logged(step: int, section: MetricSection, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return a row as W&B takes it: its axis, and the finite values."""
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return {**finite, _axis(section): step}


class History:
    """Sends the rows of a record, the n-th as the n-th step of W&B's history; the first ``known`` are there.

    Signs of collapse that are news become an alert.
    """

    def __init__(self, live: Any, *, known: int = 0) -> None:
        self._live, self._known = live, known
        self._alerts = CollapseAlerts()
        self.sent = 0

    def send(self, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None:
        """Send the next row, unless it is there; values that are not finite are left out."""
        alert = self._alerts.text(step, metrics)
        if self.sent >= self._known:
            self._live.log(logged(step, section, metrics), step=self.sent)
            if alert:
                self._live.alert(title=self._alerts.TITLE, text=alert, level="WARN")
        self.sent += 1


def _axis(section: str) -> str:
    return "cold_start/step" if section == MetricSection.COLD_START else "train/step"


def finish(live: Any, content: MirrorContent, ending: Ending) -> None:
    """Add what is shown beside the curves, and an alert where the run did not come to its end; finish."""
    import wandb

    live.summary.update({name: value for name, value in content.summary.items() if math.isfinite(value)})
    for name, table in content.tables.items():
        live.log({name: wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])})
    for kind, files in content.artifacts.items():
        artifact = wandb.Artifact(f"{kind}-{live.id}", type=kind)
        for name, path in files.items():
            # The file itself, not a copy of it in a folder of W&B's.
            artifact.add_file(str(path.resolve()), name=name, policy="immutable", skip_cache=True)
        live.log_artifact(artifact)
    if ending.state is not RunState.DONE:
        level = "INFO" if ending.is_stop else "ERROR"
        live.alert(title=f"run {ending.state.value}", text=ending.cause, level=level)
    live.finish(exit_code=0 if ending.state is RunState.DONE else 1)
