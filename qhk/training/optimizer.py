"""The optimiser, the step size, and the coefficients that change over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qhk.objective.schedule import schedule_factor
from qhk.objective.total import Terms
from qhk.settings import Duration, OptimizerSettings, Schedule, Settings
from qhk.training.stochastic_adamw import StochasticAdamW


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How long a run is: ``total_steps``, and how many steps make one epoch of the training data."""

    total_steps: int
    steps_per_epoch: float

    def steps(self, duration: Duration) -> int:
        """The duration in whole steps, rounded up."""
        if duration.steps is not None:
            return duration.steps
        assert duration.epochs is not None
        return math.ceil(duration.epochs * self.steps_per_epoch - 1e-9)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What schedules run over: from the step ``first`` of the run, counted from 0, over a horizon."""

    first: int
    horizon: Horizon


def horizon(duration: Duration, *, num_examples: int, prompts_per_step: int) -> Horizon:
    """The run's length for a training set of ``num_examples``; an epoch is one look at each of them."""
    steps_per_epoch = num_examples / prompts_per_step
    empty = Horizon(total_steps=0, steps_per_epoch=steps_per_epoch)
    return Horizon(total_steps=empty.steps(duration), steps_per_epoch=steps_per_epoch)


def factor(schedule: Schedule, step: int, run: Horizon) -> float:
    """The schedule's factor at a step counted from 0."""
    until = run.total_steps if schedule.until is None else run.steps(schedule.until)
    return schedule_factor(
        step,
        form=schedule.form,
        warmup_steps=run.steps(schedule.warmup),
        until_steps=until,
        final=schedule.final,
    )


def long_warmups(settings: Settings, run: Horizon) -> list[str]:
    """One line for each warm-up that the run is too short for: its factor never reaches 1."""
    schedules = {
        "lr_schedule": settings.lr_schedule,
        "uncertainty.schedule": settings.uncertainty.schedule,
        "perception.gamma_schedule": settings.perception.gamma_schedule,
        "twin.strength_schedule": settings.twin.strength_schedule,
    }
    return [
        f"{key}.warmup of {run.steps(schedule.warmup)} steps is longer than the run of {run.total_steps}"
        for key, schedule in schedules.items()
        if run.steps(schedule.warmup) > run.total_steps
    ]


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What the schedules say for one step."""

    learning_rate: float
    alpha: float
    twin_factor: float
    terms: Terms


def coefficients(settings: Settings, step: int, run: Horizon) -> Coefficients:
    """Learning rate, uncertainty strength, strength of twins and loss terms at a step counted from 0."""
    objective, perception = settings.objective, settings.perception
    return Coefficients(
        learning_rate=settings.optimizer.lr * factor(settings.lr_schedule, step, run),
        alpha=settings.uncertainty.alpha * factor(settings.uncertainty.schedule, step, run),
        twin_factor=factor(settings.twin.strength_schedule, step, run),
        terms=Terms(
            ratio=objective.ratio,
            clip_low=objective.clip_low,
            clip_high=objective.clip_high,
            aggregation=objective.aggregation,
            constant_length=objective.constant_length,
            kl_coef=objective.kl_coef if objective.kl_placement == "loss" else 0.0,
            kl_estimator=objective.kl_estimator,
            entropy_coef=objective.entropy_coef,
            entropy_scope=objective.entropy_scope,
            perception=perception.form,
            gamma=perception.gamma * factor(perception.gamma_schedule, step, run),
            exponent_bound=perception.exponent_bound,
            value_bound=perception.value_bound,
            perception_aggregation=perception.aggregation,
            entropy=perception.entropy,
            eta_original=perception.eta_original,
            eta_degraded=perception.eta_degraded,
        ),
    )


def build_optimizer(model: Any, settings: OptimizerSettings, *, seed: int) -> torch.optim.Optimizer:
    """The optimiser of the parameters that learn; the learning rate is set anew at every step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    values: dict[str, Any] = {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if settings.form == "adamw_stochastic":
        return StochasticAdamW(parameters, seed=seed, **values)
    return torch.optim.AdamW(parameters, **values)


class NonFiniteGradientError(FloatingPointError):
    """The gradient holds a NaN or an infinity; the weights have not been touched."""


def apply_gradients(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, learning_rate: float, max_grad_norm: float
) -> float:
    """The gradient norm before clipping, after one optimiser step.

    Raises :class:`NonFiniteGradientError`, before any weight changes, naming the first parameter at fault.
    """
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    total = nn.utils.get_total_norm(gradients.values())
    norm = float(total)
    if not math.isfinite(norm):
        faulty = (name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all()))
        raise NonFiniteGradientError(f"gradient of {next(faulty, 'all parameters together')} is not finite")
    nn.utils.clip_grads_with_norm_(model.parameters(), max_grad_norm, total)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
