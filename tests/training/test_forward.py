"""The forward passes of a micro-batch: what is alive at a time, and how much goes through each tower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from qhk.objective.total import Needs
from qhk.policy.load import Policy
from qhk.policy.packed import pack_groups
from qhk.policy.prompt import EncodedPrompt
from qhk.training import forward
from qhk.training.forward import Images, MicroBatch, policy_branches

Encode = Callable[[int, int], EncodedPrompt]
LENGTHS = ((5, 1, 9), (3, 7, 2))
EVERYTHING = Needs(
    reference=True,
    original_entropy=True,
    degraded=True,
    degraded_entropy=True,
    degraded_gradient=True,
    exact_kl=True,
    answer_tokens=False,
)


def micro_batch(policy: Policy, encode: Encode) -> MicroBatch:
    prompts = [encode(64, 64), encode(96, 32)]
    twins = [prompt.with_pixels(prompt.pixel_values * 0.5, prompt.image_grid_thw) for prompt in prompts]
    generator = torch.Generator().manual_seed(0)
    groups = [[torch.randint(0, 300, (n,), generator=generator) for n in lengths] for lengths in LENGTHS]
    return MicroBatch(
        rows=slice(0, 2),
        packed=pack_groups(prompts, groups, device=policy.model.device),
        original=Images(prompts=prompts, features=None),
        degraded=Images(prompts=twins, features=None),
    )


def branches_loss(policy: Policy, part: MicroBatch, *, needs: Needs, checkpointing: bool) -> Tensor:
    original, degraded, exact_kl = policy_branches(
        policy.model,
        part,
        needs=needs,
        temperature=1.0,
        measure=False,
        branch_checkpointing=checkpointing,
    )
    assert degraded is not None
    weights = torch.linspace(-1, 1, original.logprobs.numel(), dtype=original.logprobs.dtype)
    total = (weights.view_as(original.logprobs) * original.logprobs).sum() + 0.3 * degraded.logprobs.sum()
    for value in (original.entropy, degraded.entropy, exact_kl):
        total = total + (0.0 if value is None else 0.1 * value.sum())
    return total


@pytest.mark.parametrize("exact", [True, False])
def test_one_branch_at_a_time_gives_the_same_gradient_bit_for_bit(
    encode: Encode, policy: Policy, exact: bool
) -> None:
    """Over two micro-batches, whose gradients are added in the same order."""
    needs = EVERYTHING if exact else replace(EVERYTHING, exact_kl=False)
    policy.model.float()
    part, found = micro_batch(policy, encode), list[dict[str, Tensor]]()
    for checkpointing in (False, True):
        policy.model.zero_grad()
        for _ in range(2):
            branches_loss(policy, part, needs=needs, checkpointing=checkpointing).backward()
        found.append({name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None})
    plain, recomputed = found
    assert plain.keys() == recomputed.keys() and len(plain) > 30
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


def test_the_original_is_computed_anew_once_the_degraded_branch_is_through(
    encode: Encode, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, order = micro_batch(policy, encode), list[str]()
    compute = forward.packed_hidden

    def watched(model: Any, packed: Any, features: Tensor) -> Tensor:
        order.append("forward")
        if features.requires_grad:
            features.register_hook(lambda gradient: order.append("backward"))
        return compute(model, packed, features)

    monkeypatch.setattr(forward, "packed_hidden", watched)
    branches_loss(policy, part, needs=EVERYTHING, checkpointing=True).backward()
    assert order[:4] == ["forward", "forward", "backward", "forward"]
    order.clear()
    no_gradient = replace(EVERYTHING, degraded_gradient=False, exact_kl=False)
    branches_loss(policy, part, needs=no_gradient, checkpointing=True).detach()
    assert order == ["forward"] * 2
