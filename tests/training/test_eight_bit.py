"""Moments in 8 bits: they follow AdamW, lose no small update, resume bit for bit, draw noise of their own."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from qhk.training.eight_bit import build_adamw_8bit

SETTINGS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """One whose moments are in 8 bits, and one that is too small for that."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((64, 128), (10,))
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)
        optimizer.step()


def test_weights_follow_torchs_adamw() -> None:
    """Rounding a moment to one of 256 values costs a few per cent of what a weight moves."""
    start, ours, plain = parameters(), parameters(), parameters()
    train(build_adamw_8bit(ours, seed=0, **SETTINGS), ours, range(20))
    train(torch.optim.AdamW(plain, **SETTINGS), plain, range(20))
    for before, one, other in zip(start, ours, plain, strict=True):
        assert torch.linalg.norm(one - other) < 0.05 * torch.linalg.norm(other - before)
    assert torch.allclose(ours[1], plain[1], atol=1e-6), "the small one keeps its moments as they are"
    assert not torch.equal(ours[0], plain[0])


def test_a_small_update_is_not_lost_in_bfloat16() -> None:
    weight = nn.Parameter(torch.full((64, 128), 0.02, dtype=torch.bfloat16))
    start = float(weight.detach().double().mean())
    optimizer = build_adamw_8bit([weight], seed=0, **{**SETTINGS, "lr": 5e-6, "weight_decay": 0.0})
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert float(weight.detach().double().mean()) == pytest.approx(start - 100 * 5e-6, abs=2e-5)


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    """Codes, scales in float32 beside weights in bfloat16, and the noise; the file holds plain tensors."""
    straight = parameters(torch.bfloat16)
    train(build_adamw_8bit(straight, seed=1, **SETTINGS), straight, range(6))
    resumed = parameters(torch.bfloat16)
    first = build_adamw_8bit(resumed, seed=1, **SETTINGS)
    train(first, resumed, range(3))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = build_adamw_8bit(resumed, seed=1, **SETTINGS)
    state = torch.load(file, weights_only=True)
    moment = state["state"][0]["exp_avg"]
    assert moment["codes"].dtype == torch.uint8 and moment["scale"].dtype == torch.float32
    second.load_state_dict(state)
    train(second, resumed, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(straight, resumed, strict=True))


def test_the_noise_is_its_own() -> None:
    """Whatever the global generator holds, which it leaves as it was; another seed rounds otherwise."""
    results = []
    for seed, global_seed in ((1, 5), (1, 6), (2, 5)):
        weights = parameters(torch.bfloat16)
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        train(build_adamw_8bit(weights, seed=seed, **SETTINGS), weights, range(2))
        assert torch.equal(torch.get_rng_state(), before)
        results.append(weights[0].detach())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
