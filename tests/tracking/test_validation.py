"""Last and best on the validation part, side by side."""

from __future__ import annotations

from pathlib import Path

from qhk.tracking.recorder import MetricSection, MetricsRecorder
from qhk.tracking.validation import figures, last_and_best, validation_line


def validated(directory: Path, *, best: int | None) -> Path:
    recorder = MetricsRecorder(directory / "metrics.jsonl")
    for step, srcc in ((20, 0.5), (40, 0.75), (60, 0.625)):
        recorder.record(step=step, section=MetricSection.TRAIN, metrics={"train/loss/total": 0.1})
        recorder.record(
            step=step,
            section=MetricSection.VALIDATION,
            metrics={"validation/srcc": srcc, "validation/mae": 0.1},
        )
    recorder.record(step=60, section=MetricSection.EVAL, metrics={"eval/mean/srcc": 0.9})
    for step in (40, 60):
        (directory / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
    if best is not None:
        (directory / "checkpoints" / "best").symlink_to(f"step_{best:06d}")
    return directory


def test_best_is_the_checkpoint_of_that_name(tmp_path: Path) -> None:
    found = last_and_best(validated(tmp_path, best=40))
    assert {name: (row.step, row.metrics["validation/srcc"]) for name, row in found.items()} == {
        "last": (60, 0.625), "best": (40, 0.75),
    }  # fmt: skip
    assert validation_line(tmp_path) == (
        "validation part: last (step 60) SRCC 0.625, best (step 40) SRCC 0.750"
    )


def test_a_run_without_checkpoints_has_no_best_and_one_without_validation_neither(tmp_path: Path) -> None:
    assert list(last_and_best(validated(tmp_path, best=None))) == ["last"]
    assert last_and_best(tmp_path / "empty") == {} and validation_line(tmp_path / "empty") == ""


def test_tasks_are_told_apart() -> None:
    metrics = {
        "validation/score/plcc": 0.5,
        "validation/degradation/accuracy": 0.25,
        "validation/score/mae": 0.1,
    }
    assert figures(metrics) == {"score PLCC": 0.5, "degradation accuracy": 0.25}
