"""Stochastic rounding is unbiased, and lets a small update move bfloat16 weights that plain AdamW cannot."""

from __future__ import annotations

import torch
from torch import nn

from qhk.training.optimizer import StochasticAdamW, round_stochastically

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_rounding_keeps_the_mean() -> None:
    for value in (0.0200123, -1.2345, 3e-5):
        rounded = round_stochastically(torch.full((200_000,), value), generator()).double()
        gap = float((rounded.max() - rounded.min()).abs())
        assert 0 < gap < 0.01 * abs(value)
        assert abs(float(rounded.mean()) - value) < 0.01 * gap


def test_exact_values_stay() -> None:
    values = torch.tensor([0.0, 1.0, -0.5, 2.0**-20, 3.0])
    assert torch.equal(round_stochastically(values, generator()).float(), values)


def test_float32_weights_follow_torch_adamw() -> None:
    torch.manual_seed(0)
    ours, plain = (nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    first = StochasticAdamW([ours], seed=0, **SETTINGS)  # type: ignore[arg-type]
    second = torch.optim.AdamW([plain], **SETTINGS)  # type: ignore[arg-type]
    for _ in range(20):
        gradient = torch.randn(50)
        ours.grad, plain.grad = gradient.clone(), gradient.clone()
        first.step()
        second.step()
    assert torch.allclose(ours, plain, atol=1e-6)


def train(optimizer: torch.optim.Optimizer, weight: nn.Parameter, steps: int) -> float:
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return float(weight.detach().double().mean())


def test_a_small_update_is_not_lost() -> None:
    """100 steps of 5e-6 down from 0.02: nearest rounding stands still, stochastic rounding arrives."""
    settings = {**SETTINGS, "lr": 5e-6, "weight_decay": 0.0}
    still, moving = (nn.Parameter(torch.full((20_000,), 0.02, dtype=torch.bfloat16)) for _ in range(2))
    start = float(still.detach().double().mean())
    assert train(torch.optim.AdamW([still], **settings), still, 100) == start  # type: ignore[arg-type]
    arrived = train(StochasticAdamW([moving], seed=0, **settings), moving, 100)  # type: ignore[arg-type]
    assert abs(arrived - (start - 100 * 5e-6)) < 1e-5


def test_resuming_repeats_the_noise() -> None:
    def run(stop_after: int | None) -> torch.Tensor:
        weight = nn.Parameter(torch.linspace(0.01, 0.02, 1000).bfloat16())
        optimizer = StochasticAdamW([weight], seed=3, **SETTINGS)  # type: ignore[arg-type]
        for step in range(6):
            if step == stop_after:
                state = optimizer.state_dict()
                optimizer = StochasticAdamW([weight], seed=3, **SETTINGS)  # type: ignore[arg-type]
                optimizer.load_state_dict(state)
            weight.grad = torch.full_like(weight, 0.1 * (step + 1))
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(None), run(3))
