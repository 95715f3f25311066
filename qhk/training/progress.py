"""The line that a run prints every ``log_every`` steps."""

from __future__ import annotations

import time
from collections.abc import Mapping

PARTS = (
    ("train/loss/total", "loss {:.3f}"),
    ("train/reward/total/mean", "reward {:.3f}"),
    ("train/parse/failed_frac", "unparsed {:.1%}"),
    ("train/uncertainty/weight/mean", "uncertainty weight {:.3f}"),
    ("train/perception/exact_kl", "perception KL {:.3f}"),
    ("train/tokens_per_s", "{:.0f} tokens/s"),
)
"""Metric and how it is shown, in order; those that a step did not measure are left out."""


class Pace:
    """How long the steps of this process take; begins to count when it is made, at step ``first``."""

    def __init__(self, *, first: int, total: int) -> None:
        self.first, self.total = first, total
        self._started = time.monotonic()

    def seconds_left(self, step: int) -> float:
        """What the remaining steps will take at the mean pace so far, validation and checkpoints included."""
        assert step > self.first
        return (time.monotonic() - self._started) / (step - self.first) * (self.total - step)


def progress_line(metrics: Mapping[str, float], *, step: int, pace: Pace, validation: str) -> str:
    """Step of total, time left, what the step measured, and the last validation once there is one."""
    width = len(str(pace.total))
    parts = [f"step {step:{width}d}/{pace.total}", f"left {duration(pace.seconds_left(step))}"]
    parts += [form.format(metrics[name]) for name, form in PARTS if name in metrics]
    parts += [f"last validation {validation}"] if validation else []
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Whole hours, minutes and seconds, as 0:00:07."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
