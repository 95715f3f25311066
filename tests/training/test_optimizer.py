"""Durations, schedules over a run, and the guard before a weight changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from qhk.settings.base import Duration, Schedule
from qhk.settings.root import Settings
from qhk.training.optimizer import (
    Horizon,
    NonFiniteGradientError,
    apply_gradients,
    coefficients,
    factor,
    horizon,
    long_warmups,
)

RUN = Horizon(total_steps=100, steps_per_epoch=12.5)
NO_WARMUP = Duration(steps=0, epochs=None)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ({"steps": 7, "epochs": None}, 7),
        ({"steps": None, "epochs": 2.0}, 25),
        ({"steps": None, "epochs": 0.1}, 2),
    ],
)
def test_durations_in_steps(duration: dict[str, float], steps: int) -> None:
    assert RUN.steps(Duration.model_validate(duration)) == steps


def test_an_epoch_is_one_look_at_every_example() -> None:
    run = horizon(Duration(steps=None, epochs=3.0), num_examples=10, prompts_per_step=4)
    assert run.total_steps == 8 and run.steps_per_epoch == 2.5


def test_cosine_to_zero_at_an_epoch() -> None:
    """The release's gamma: half a cosine to 0 at epoch E0, and 0 from there on."""
    schedule = Schedule(form="cosine", warmup=NO_WARMUP, until=Duration(steps=None, epochs=4.0), final=0.0)
    values = [factor(schedule, step, RUN) for step in (0, 25, 50, 99)]
    assert values == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-12)


def test_coefficients_follow_their_own_schedules(small: Callable[..., Settings]) -> None:
    settings = small(
        "uncertainty.schedule.form=linear",
        "uncertainty.schedule.until={steps: 10, epochs: null}",
        "uncertainty.schedule.final=0.0",
        "perception.gamma=0.5",
        "perception.gamma_schedule.form=constant",
        "lr_schedule.form=linear",
        "lr_schedule.warmup.steps=0",
        "lr_schedule.final=0.0",
    )
    run = Horizon(total_steps=20, steps_per_epoch=4.0)
    now = coefficients(settings, 5, run)
    warm = small("lr_schedule.warmup.steps=4", "lr_schedule.warmup_from=zero", name="warm")
    rates = [coefficients(warm, step, run).learning_rate / warm.optimizer.lr for step in (0, 1, 4)]
    assert rates == pytest.approx([0.0, 0.25, 1.0])
    assert [bool(long_warmups(warm, replace(run, total_steps=steps))) for steps in (4, 5)] == [True, False]
    assert now.alpha == pytest.approx(settings.uncertainty.alpha * 0.5)
    assert now.terms.gamma == 0.5
    assert now.learning_rate == pytest.approx(settings.optimizer.lr * 0.75)


@pytest.mark.parametrize(
    ("words", "terms"),
    [
        (("objective=cispo",), {"surrogate": "cispo", "clip_low": None, "clip_high": 4.0}),
        (("objective=sapo", "objective.soft_negative=1.2"), {"surrogate": "sapo", "soft_negative": 1.2}),
        (("objective=luspo",), {"ratio": "sequence", "aggregation": "constant", "constant_length": 1}),
        (
            ("objective=kl_cov", "objective.covariance.kl_coef=0.5"),
            {"covariance": "kl", "covariance_kl_coef": 0.5, "clip_high": None},
        ),
        (("objective=clip_cov",), {"covariance": "clip", "clip_high": 0.2}),
        (("objective=entropy_gating",), {"entropy_share": 0.2}),
        (("objective.credit=reasoning",), {"credit": "reasoning"}),
        (
            ("perception=none", "dependency=vppo", "dependency.share=0.3", "dependency.lowest=0.8"),
            {"dependency": "vppo", "dependency_share": 0.3, "dependency_lowest": 0.8, "perception": "none"},
        ),
        (
            ("dependency=pgpo", "dependency.threshold=0.1", "dependency.strength=2.0"),
            {"dependency": "pgpo", "dependency_threshold": 0.1, "dependency_strength": 2.0},
        ),
    ],
)
def test_options_of_methods_reach_the_loss(
    small: Callable[..., Settings], words: tuple[str, ...], terms: dict[str, object]
) -> None:
    now = coefficients(small(*words), 0, RUN).terms
    assert {key: getattr(now, key) for key in terms} == terms


def test_a_schedule_of_a_reward_is_that_of_the_stage(small: Callable[..., Settings]) -> None:
    settings = small("reward=threshold_curriculum", "reward.schedules.accuracy.threshold.final=0.5")
    factors = [coefficients(settings, step, RUN).reward_factors["score"] for step in (0, 50, 100)]
    assert factors == [{"accuracy.threshold": value} for value in (1.0, 0.75, 0.5)]
    warm = small("reward=threshold_curriculum", "reward.schedules.accuracy.threshold.warmup.steps=101")
    (line,) = (line for line in long_warmups(warm, RUN) if "reward" in line)
    assert line.startswith("reward.schedules.accuracy.threshold.warmup of 101 steps is longer")


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    model = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert model.bias.grad is not None
    model.bias.grad[1] = math.inf
    with pytest.raises(NonFiniteGradientError, match="gradient of bias is not finite"):
        apply_gradients(model, optimizer, learning_rate=0.1, max_grad_norm=1.0)
    # Clipping by an infinite norm would have scaled the finite gradients to 0 and the rest to NaN.
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_clipping_keeps_the_direction() -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    assert apply_gradients(model, optimizer, learning_rate=1.0, max_grad_norm=1.0) == pytest.approx(5.0)
    assert torch.allclose(before - model.weight.detach(), torch.tensor([[0.6, 0.8]]), atol=1e-5)


def test_twins_grow_stronger_over_their_warm_up(small: Callable[..., Settings]) -> None:
    settings = small("twin.strength_schedule.warmup={steps: 4, epochs: null}")
    run = Horizon(total_steps=20, steps_per_epoch=4.0)
    assert [coefficients(settings, step, run).twin_factor for step in (0, 1, 3, 4, 19)] == [
        0.25,
        0.5,
        1,
        1,
        1,
    ]
    plain = Horizon(total_steps=2, steps_per_epoch=4.0)
    assert coefficients(small(name="plain"), 0, plain).twin_factor == 1.0
