"""The vision tower's windows in few calls: the same values and gradients as one call for each of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from qhk.policy import windows
from qhk.policy.load import Policy, prepare_model
from qhk.policy.packed import encode_images
from tests.conftest import MESSAGES, build_policy, picture

SIZES = ((96, 80), (32, 48), (48, 32), (96, 96))
"""Pictures with whole windows, windows cut at one edge or both, and less than one."""


def features(policy: Policy, model: object, *sizes: tuple[int, int]) -> Tensor:
    pictures = [picture(*size, seed=place) for place, size in enumerate(sizes)]
    return encode_images(model, [policy.encoder.encode(MESSAGES, [one]) for one in pictures])


def gradients(output: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_windows_together_equal_one_call_each(dtype: torch.dtype, full_precision: None) -> None:
    policy = build_policy(dtype=dtype)
    stock = copy.deepcopy(policy.model)
    stock.set_attn_implementation("sdpa")
    ours, theirs = features(policy, policy.model, *SIZES), features(policy, stock, *SIZES)
    assert torch.equal(ours, theirs)
    own, expected = gradients(ours, policy.model), gradients(theirs, stock)
    assert own.keys() == expected.keys() and any("blocks.0.attn.qkv" in name for name in own)
    for name, value in expected.items():
        atol = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(own[name], value, rtol=0, atol=atol * float(value.abs().max()))


def test_a_picture_takes_one_call_per_length_of_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock attention takes one call for each of nine windows in a block, and one in the full block."""
    shapes = list[torch.Size]()
    attend = windows.scaled_dot_product_attention

    def count(query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
        shapes.append(query.shape)
        return attend(query, key, value, scale=scale)

    monkeypatch.setattr(windows, "scaled_dot_product_attention", count)
    policy = build_policy()
    prepare_model(policy.model)  # a second time changes nothing
    features(policy, policy.model, (96, 80))
    windowed, full = shapes[:-1], shapes[-1]
    assert sum(shape[0] * shape[2] for shape in windowed) == full[2] == 12 * 10
    assert full[0] == 1 and len(windowed) == len({shape[2] for shape in windowed}) == 2


def test_other_attention_functions_see_their_own_windows(full_precision: None) -> None:
    """The stock functions must not be handed one window for all."""
    policy = build_policy()
    ours = features(policy, policy.model, (96, 80)).detach()
    policy.model.set_attn_implementation("eager")
    eager = features(policy, policy.model, (96, 80)).detach()
    assert float((ours - eager).abs().max()) < 1e-5  # eager softmax is float32
