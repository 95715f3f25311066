"""A W&B workspace that shows mirrored runs as methods x benchmarks: means and spreads over seeds."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qhk.errors import UserError
from qhk.report.runs import EVALUATIONS, Runs

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

METRICS = ("srcc", "plcc", "accuracy")
CURVES = (
    "validation/srcc",
    "validation/accuracy",
    "train/reward/total/mean",
    "train/parse/failed_frac",
    "train/scores/distinct",
    "cold_start/loss",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A project of W&B, and whose it is."""

    entity: str
    project: str


def wanted_place(text: str) -> Place:
    """Return the place that ``entity/project`` names.

    Raises ``UserError`` for other texts, and where the extra is missing.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("wandb_workspace needs the extra workspace; install it: pip install 'qhk[workspace]'")
    match = re.fullmatch(r"([A-Za-z0-9_-]+)/([A-Za-z0-9._-]+)", text)
    if match is None:
        raise UserError(f"wandb_workspace: must be entity/project, got {text}")
    return Place(entity=match[1], project=match[2])


def build_workspace(runs: Runs, place: Place, *, title: str) -> Workspace:
    """Return the workspace of the runs' studies and methods; nothing is sent.

    Its table of runs is grouped by method, so that a row is the mean over seeds, with the headline results of
    every benchmark as columns; its bars add their standard deviation. Needs the extra ``workspace``.
    """
    import wandb_workspaces.reports.v2.interface as parts
    import wandb_workspaces.workspaces as ws

    records = [record for record in runs.records if record.directory.parent.name != EVALUATIONS]
    studies = list(dict.fromkeys(record.directory.parents[1].name for record in records))
    names = list(dict.fromkeys(record.directory.parent.name for record in records))
    columns = result_columns(runs)
    over_seeds: dict[str, Any] = {
        "groupby": parts.Config("name"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev",
    }  # fmt: skip
    bars: list[Any] = [parts.BarPlot(title=name, metrics=[name], **over_seeds) for name in columns]
    curves: list[Any] = [parts.LinePlot(title=name, x=_axis(name), y=[name], **over_seeds) for name in CURVES]
    said = parts.WeavePanelSummaryTable(table_name="completions")
    return ws.Workspace(
        entity=place.entity,
        project=place.project,
        name=title,
        auto_generate_panels=False,
        sections=[
            ws.Section(name="methods x benchmarks", panels=bars, is_open=True),
            ws.Section(name="curves", panels=curves, is_open=True),
            ws.Section(name="completions", panels=[said], is_open=False),
        ],
        runset_settings=ws.RunsetSettings(
            filters=f"Group in {studies} and Config('name') in {names}",
            groupby=[ws.Config("name")],
            pinned_columns=["run:displayName", *(f"summary:{name}" for name in columns)],
        ),
    )


def result_columns(runs: Runs) -> list[str]:
    """Return the metrics that the table has: by metric the mean over benchmarks, then every benchmark."""
    found = {(row.benchmark, metric): None for r in runs.records for row in r.rows for metric in row.metrics}
    columns = []
    for metric in METRICS:
        benchmarks = [benchmark for benchmark, name in found if name == metric]
        columns += [f"eval/{name}/{metric}" for name in (["mean", *benchmarks] if benchmarks else [])]
    return columns


def workspace_spec(workspace: Workspace) -> dict[str, Any]:
    """Return the workspace as the JSON object that W&B stores."""
    spec: dict[str, Any] = workspace._to_model().model_dump(mode="json", by_alias=True)
    return spec


def _axis(name: str) -> str:
    return "cold_start/step" if name.startswith("cold_start/") else "train/step"
