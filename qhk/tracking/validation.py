"""What the validation part said of the last and of the best checkpoint of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from qhk.tracking.recorder import MetricRow, MetricSection, read_metrics

SHOWN = {"srcc": "SRCC", "plcc": "PLCC", "accuracy": "accuracy"}
"""What is shown of a validation, by the last part of the metric's name."""

_STEP = re.compile(r"step_(\d+)")


def last_and_best(directory: Path) -> dict[str, MetricRow]:
    """Return the validations of a run's ``last`` and ``best``, as far as there are any.

    ``best`` is the checkpoint of that name, which was chosen by the validation part; a run without one, or
    that kept no checkpoints, has no best.
    """
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if _is_validation(row)]
    found = {"last": rows[-1]} if rows else {}
    named = _STEP.fullmatch((directory / "checkpoints" / "best").resolve().name)
    best = [row for row in rows if named is not None and row.step == int(named[1])]
    return {**found, "best": best[-1]} if best else found


def _is_validation(row: MetricRow) -> bool:
    return row.section is MetricSection.VALIDATION and bool(figures(row.metrics))


def figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return what is shown of a validation, as ``SRCC`` or, of one of several tasks, ``score SRCC``."""
    return {
        " ".join([*parts[1:-1], SHOWN[parts[-1]]]): value
        for name, value in metrics.items()
        if (parts := name.split("/"))[-1] in SHOWN
    }


def validation_line(directory: Path) -> str:
    """Return last and best side by side, in one line; empty for a run without validation."""
    found = last_and_best(directory)
    said = [
        f"{name} (step {row.step}) "
        + "  ".join(f"{figure} {value:.3f}" for figure, value in figures(row.metrics).items())
        for name, row in found.items()
    ]
    return f"validation part: {', '.join(said)}" if said else ""
