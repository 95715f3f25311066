"""Every experiment runs two steps at miniature scale, with its own task, reward and stages, to its table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qhk.cli.job import prepare
from qhk.config.catalogue import config_root, read_catalogue
from qhk.evaluation.results import Moment, headline_metric, read_results
from qhk.settings import Settings, task_views
from qhk.tracking.recorder import MetricSection, read_metrics
from qhk.training.loop import train
from qhk.training.run import Run

EXPERIMENTS = read_catalogue(config_root()).options["experiment"]
SHORT = (
    "scale=miniature",
    "training.duration.steps=2",
    "training.prompts_per_step=4",
    "training.prompts_per_device=2",
    "training.validate_every=2",
    "training.threads=1",
    "training.validation_readout.num_samples=2",
    "rollout.group_size=3",
    "cold_start.steps=6",
    "cold_start.batch_size=4",
    "cold_start.warmup_steps=1",
    "cold_start.num_examples=12",
    "cold_start.validate_every=6",
    "model.tiny.whitening_images=8",
    "evaluation.bootstrap=0",
    "evaluation.readouts={greedy: {num_samples: 1, temperature: 0.0, max_new_tokens: 40}}",
    "evaluation.headline=greedy",
    "tracking=none",
)


def short_settings(experiment: str, root: Path, cache: Path) -> Settings:
    """The experiment as it stands, with a handful of images of every set."""
    words = [f"experiment={experiment}", *SHORT, f"paths.outputs={root}", f"paths.cache={cache}", "name=run"]
    catalogue = read_catalogue(config_root())
    whole = prepare("train", words, catalogue).settings
    for task, view in task_views(whole).items():
        node = "" if task == whole.task.form else f"mixture.{task}."
        words += [f"{node}benchmark=[{','.join(f'{{{name}:{{limit:4}}}}' for name in view.benchmark)}]"]
    words += ["loading.limit=8", "loading.validation_limit=4"]
    return prepare("train", words, catalogue).settings


def test_scores_then_comparisons_run_to_their_table(
    tmp_path: Path, miniature_cache: Path, open_run: Callable[[Settings], Run]
) -> None:
    words = [*SHORT, "stages=scores_then_comparisons", f"paths.outputs={tmp_path}", "name=run"]
    words += [f"paths.cache={miniature_cache}", "loading.limit=8", "loading.validation_limit=4"]
    words += ["benchmark={miniature_spaq:{limit:4}}"]
    stage = "stages.comparisons"
    words += [f"{stage}.benchmark={{miniature_comparison:{{limit:4}}}}"]
    run = open_run(prepare("train", words, read_catalogue(config_root())).settings)
    with run.directory:
        train(run)
    rows = [
        (row.benchmark, row.form, row.moment, row.step) for row in read_results(run.directory.results).rows
    ]
    assert sorted(set(rows)) == [
        ("miniature_comparison", "comparison", Moment.AFTER, 2),
        ("miniature_comparison", "comparison", Moment.BEFORE, 1),
        ("miniature_spaq", "score", Moment.AFTER, 1),
        ("miniature_spaq", "score", Moment.BEFORE, 0),
    ]
    assert "weighs nothing here" in "".join(run.display.lines)  # type: ignore[attr-defined]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_two_steps(
    experiment: str, tmp_path: Path, miniature_cache: Path, open_run: Callable[[Settings], Run]
) -> None:
    settings = short_settings(experiment, tmp_path, miniature_cache)
    run = open_run(settings)
    with run.directory:
        train(run)
    rows = read_results(run.directory.results).rows
    after = Moment.CONTROL if settings.training.learner == "supervised" else Moment.AFTER
    assert {row.moment for row in rows} == {Moment.BEFORE, after}
    for view in task_views(settings).values():
        asked = [row for row in rows if row.form == view.task.form]
        assert {row.benchmark for row in asked} == set(view.benchmark)
        assert all(headline_metric(row.form) in row.metrics for row in asked)
        assert all(row.miniature and row.n == 4 for row in asked)
    steps: list[dict[str, Any]] = [
        row.metrics for row in read_metrics(run.directory.metrics) if row.section is MetricSection.TRAIN
    ]
    assert len(steps) == 2
    assert all(math.isfinite(row["train/loss/total"]) for row in steps)
    config = json.loads(json.dumps(run.config))
    assert all(entry["miniature"] for entry in config["dataset"].values())
