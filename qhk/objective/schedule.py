"""Schedules of a coefficient over the steps of a run."""

from __future__ import annotations

import math
from typing import Literal

from qhk.errors import UserError

Form = Literal["constant", "linear", "cosine"]

WarmupFrom = Literal["one", "zero"]
"""The number of the first step of a warm-up."""


def schedule_factor(
    step: int,
    *,
    form: Form,
    warmup_steps: int,
    until_steps: int | None,
    final: float,
    warmup_from: WarmupFrom = "one",
) -> float:
    """Return the factor that a coefficient is multiplied with at ``step`` (counted from 0).

    Warm-up, ``step < warmup_steps``: ``(step + 1) / warmup_steps``, which ends at 1; with ``warmup_from``
    zero ``step / warmup_steps``, so that the first step does nothing (transformers, and so the releases).
    Then, with ``p = (step - warmup_steps) / (until_steps - warmup_steps)``:

    constant  ``1``
    linear    ``1 + (final - 1) p``
    cosine    ``final + (1 - final) (1 + cos(pi p)) / 2``

    From ``until_steps`` on: ``final``. ``until_steps`` None: constant never ends; linear and cosine need an
    end (the length of the run, where the schedule is of the learning rate). The Q-Hawkeye release lets gamma
    fall by cosine to 0 at epoch 5. ``UserError`` names what is missing or out of range.
    """
    if step < 0 or warmup_steps < 0:
        raise UserError(f"schedule: step and warmup must be >= 0, got {step} and {warmup_steps}")
    if form not in ("constant", "linear", "cosine"):
        raise UserError(f"schedule.form: unknown {form!r}; use constant, linear or cosine")
    if until_steps is None and form != "constant":
        raise UserError(f"schedule.until: missing; form={form} needs the step or epoch where it ends")
    if until_steps is not None and step >= until_steps:
        return final
    if step < warmup_steps:
        return (step + (warmup_from == "one")) / warmup_steps
    if until_steps is None or form == "constant":
        return 1.0
    progress = (step - warmup_steps) / (until_steps - warmup_steps)
    if form == "linear":
        return 1.0 + (final - 1.0) * progress
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))
