"""A run whose stages ask different tasks reports each stage on its own benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qhk.cli.job import prepare
from qhk.evaluation.results import Moment, read_results
from qhk.settings.root import Settings
from qhk.training.loop import train
from qhk.training.run import Run
from tests.conftest import repository_catalogue

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


def test_scores_then_comparisons_run_to_their_table(
    tmp_path: Path, miniature_cache: Path, open_run: Callable[[Settings], Run]
) -> None:
    words = [*SHORT, "stages=scores_then_comparisons", f"paths.outputs={tmp_path}", "name=run"]
    words += [f"paths.cache={miniature_cache}", "loading.limit=8", "loading.validation_limit=4"]
    words += ["benchmark={miniature_spaq:{limit:4}}"]
    stage = "stages.comparisons"
    words += [f"{stage}.benchmark={{miniature_comparison:{{limit:4}}}}"]
    run = open_run(prepare("train", words, repository_catalogue()).settings)
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
