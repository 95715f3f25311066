"""The optimisers, the step size, and the coefficients that change over a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qhk.data.seeds import stream_seed
from qhk.objective.schedule import schedule_factor
from qhk.objective.total import Terms
from qhk.settings.base import Duration, Schedule
from qhk.settings.root import Settings
from qhk.settings.training import OptimizerSettings
from qhk.settings.views import task_views
from qhk.training.eight_bit import build_adamw_8bit
from qhk.training.sharding import part_of, whole, zero_of


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """How long a run is: ``total_steps``, and how many steps make one epoch of the training data."""

    total_steps: int
    steps_per_epoch: float

    def steps(self, duration: Duration) -> int:
        """Return the duration in whole steps, rounded up."""
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
    """Return a run's length for a training set of ``num_examples``; an epoch shows each of them once."""
    steps_per_epoch = num_examples / prompts_per_step
    empty = Horizon(total_steps=0, steps_per_epoch=steps_per_epoch)
    return Horizon(total_steps=empty.steps(duration), steps_per_epoch=steps_per_epoch)


def factor(schedule: Schedule, step: int, run: Horizon) -> float:
    """Return the schedule's factor at a step counted from 0."""
    until = run.total_steps if schedule.until is None else run.steps(schedule.until)
    return schedule_factor(
        step,
        form=schedule.form,
        warmup_steps=run.steps(schedule.warmup),
        until_steps=until,
        final=schedule.final,
        warmup_from=schedule.warmup_from,
    )


def long_warmups(settings: Settings, run: Horizon) -> list[str]:
    """Return one line for each warm-up that the run is too short for: its factor never reaches 1."""
    schedules = {
        "lr_schedule": settings.lr_schedule,
        "uncertainty.schedule": settings.uncertainty.schedule,
        "perception.gamma_schedule": settings.perception.gamma_schedule,
        "twin.strength_schedule": settings.twin.strength_schedule,
        **{
            f"{'' if task == settings.task.form else f'mixture.{task}.'}reward.schedules.{place}": schedule
            for task, view in task_views(settings).items()
            for place, schedule in view.reward.scheduled.items()
        },
    }
    return [
        f"{key}.warmup of {steps} steps is longer than the run of {run.total_steps}"
        for key, schedule in schedules.items()
        if (steps := _steps_to_full(schedule, run)) > run.total_steps
    ]


def _steps_to_full(schedule: Schedule, run: Horizon) -> int:
    """Return the number of the step at which a warm-up has reached 1; 0 for none."""
    steps = run.steps(schedule.warmup)
    return steps + 1 if steps and schedule.warmup_from == "zero" else steps


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """What the schedules say for one step.

    ``reward_factors`` multiply numbers of reward terms: task -> ``term.key`` -> factor.
    """

    learning_rate: float
    alpha: float
    twin_factor: float
    terms: Terms
    reward_factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def coefficients(settings: Settings, step: int, run: Horizon) -> Coefficients:
    """Return rate, uncertainty strength, strength of twins and loss terms at a step counted from 0."""
    objective, perception, dependency = settings.objective, settings.perception, settings.dependency
    lr_factor = 1.0 if settings.adapter is None else settings.adapter.lr_factor
    return Coefficients(
        learning_rate=settings.optimizer.lr * lr_factor * factor(settings.lr_schedule, step, run),
        alpha=settings.uncertainty.alpha * factor(settings.uncertainty.schedule, step, run),
        twin_factor=factor(settings.twin.strength_schedule, step, run),
        reward_factors={
            task: {place: factor(schedule, step, run) for place, schedule in view.reward.scheduled.items()}
            for task, view in task_views(settings).items()
        },
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
            surrogate=objective.surrogate,
            soft_positive=objective.soft_positive,
            soft_negative=objective.soft_negative,
            credit=objective.credit,
            entropy_share=objective.entropy_share,
            covariance=objective.covariance.form,
            covariance_kl_coef=objective.covariance.kl_coef,
            dependency=dependency.form,
            dependency_share=dependency.share,
            dependency_lowest=dependency.lowest,
            dependency_threshold=dependency.threshold,
            dependency_strength=dependency.strength,
        ),
    )


def build_optimizer(model: Any, settings: OptimizerSettings, *, seed: int) -> torch.optim.Optimizer:
    """Return the optimiser of the parameters that learn; the learning rate is set anew at every step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    values: dict[str, Any] = {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if settings.form == "adamw_stochastic":
        return StochasticAdamW(parameters, seed=seed, **values)
    if settings.form == "adamw_8bit":
        return build_adamw_8bit(parameters, seed=seed, **values)
    return torch.optim.AdamW(parameters, **values)


class NonFiniteGradientError(FloatingPointError):
    """The gradient holds a NaN or an infinity; the weights have not been touched."""


def apply_gradients(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, learning_rate: float, max_grad_norm: float
) -> float:
    """Return the gradient norm before clipping, after one optimiser step.

    Raises :class:`NonFiniteGradientError`, before any weight changes, naming the first parameter at fault.
    """
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    zero = zero_of(model)
    if zero is not None:
        norm = zero.step(max_grad_norm=max_grad_norm)
        if not math.isfinite(norm):
            raise NonFiniteGradientError("gradient of all parameters together is not finite")
        return norm
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    total = whole(nn.utils.get_total_norm(gradients.values()))
    norm = float(total)
    if not math.isfinite(norm):
        faulty = (name for name, gradient in gradients.items() if not bool(whole(gradient.isfinite().all())))
        raise NonFiniteGradientError(f"gradient of {next(faulty, 'all parameters together')} is not finite")
    nn.utils.clip_grads_with_norm_(model.parameters(), max_grad_norm, total)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


_DROPPED_BITS = 16
"""How many low bits of a float32 a bfloat16 has no room for."""


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return float32 ``values`` in bfloat16, rounded to one of two neighbours so that the mean is exact.

    A value a share s of the way from one bfloat16 to the next (away from zero) goes there with
    probability s: noise of 16 bits is added below the kept bits, which are then cut off. An exact
    bfloat16 stays itself. Infinities and NaN are left to the caller, who has refused such gradients.
    """
    noise = torch.randint(
        0, 1 << _DROPPED_BITS, values.shape, dtype=torch.int32, device=values.device, generator=generator
    )
    bits = values.contiguous().view(torch.int32)
    kept = (bits + part_of(noise, values)) & ~((1 << _DROPPED_BITS) - 1)
    return kept.view(torch.float32).to(torch.bfloat16)


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW (decoupled weight decay) with float32 moments and arithmetic and stochastically rounded weights.

    A fine-tuning update of about the learning rate, 5e-6, is far below half the distance of two
    bfloat16 numbers around a usual weight (8e-5 at 0.02): rounding to the nearest loses almost all of
    them, and a float32 copy of a 7B model does not fit beside its moments on one card. Rounding at
    random keeps the expected weight exact without that copy. Parameters of other types are updated as
    in plain AdamW. The noise of an update depends on the seed and the update's number alone.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "updates": 0}
        super().__init__(parameters, defaults)
        self._seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "gradients are accumulated before the step"
        for number, group in enumerate(self.param_groups):
            group["updates"] += 1
            generators: dict[torch.device, torch.Generator] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                device = parameter.device
                if device not in generators:
                    seed = stream_seed(self._seed, "rounding", number, group["updates"])
                    generators[device] = torch.Generator(device).manual_seed(seed % 2**63)
                self._update(parameter, group, generators[device])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state. torch casts moments to the weights' type; here they stay wide."""
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, saved in state_dict["state"].items():
            parameter = parameters[number]
            self.state[parameter] = {name: moment.to(parameter.device) for name, moment in saved.items()}

    def _update(self, parameter: Tensor, group: dict[str, Any], generator: torch.Generator) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        wide = torch.promote_types(parameter.dtype, torch.float32)
        if not state:
            state["mean"] = torch.zeros_like(parameter, dtype=wide)
            state["square"] = torch.zeros_like(parameter, dtype=wide)
        (beta1, beta2), updates = group["betas"], group["updates"]
        gradient = gradient.to(wide)
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (state["square"] / (1 - beta2**updates)).sqrt_().add_(group["eps"])
        weight = parameter.to(wide) * (1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(state["mean"], denominator, value=-group["lr"] / (1 - beta1**updates))
        is_narrow = parameter.dtype == torch.bfloat16
        parameter.copy_(round_stochastically(weight, generator) if is_narrow else weight)
