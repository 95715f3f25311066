"""Patches embedded by one product: the values and gradients of the convolution that it stands for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from qhk.policy.patches import PatchProjection
from tests.conftest import build_policy

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_product_is_the_convolution(family: str, full_precision: None) -> None:
    ours = build_policy(family=family, dtype=torch.float64).model.model.visual.patch_embed
    assert type(ours.proj) is PatchProjection
    stock = copy.deepcopy(ours)
    stock.proj.__class__ = nn.Conv3d
    found, weights = list[torch.Tensor](), list[dict[str, torch.Tensor]]()
    for embed in (ours, stock):
        patches = torch.randn(
            10,
            ours.proj.weight[0].numel(),
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(0),
            requires_grad=True,
        )
        output = embed(patches)
        (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
        assert patches.grad is not None
        found += [output.detach(), patches.grad]
        weights.append(
            {name: weight.grad for name, weight in embed.named_parameters() if weight.grad is not None}
        )
    for first, second in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-13, atol=1e-13)
    assert weights[0].keys() == weights[1].keys() == dict(stock.named_parameters()).keys()
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, rtol=1e-13, atol=1e-13)


def test_it_stays_through_a_copy_and_saves_the_same_names() -> None:
    model = build_policy().model
    twin = copy.deepcopy(model)
    assert type(twin.model.visual.patch_embed.proj) is PatchProjection
    with torch.no_grad():
        twin.model.visual.patch_embed.proj.weight.zero_()
    patches = torch.ones(2, twin.model.visual.patch_embed.proj.weight[0].numel())
    assert not twin.model.visual.patch_embed(patches).any()  # its own weights
    assert model.model.visual.patch_embed(patches).any()
    stock = type(model)(model.config)
    assert model.state_dict().keys() == stock.state_dict().keys()
    assert type(stock.model.visual.patch_embed.proj) is nn.Conv3d


def test_other_than_one_patch_is_refused() -> None:
    projection = build_policy().model.model.visual.patch_embed.proj
    with pytest.raises(AssertionError):
        projection(torch.zeros(1, *projection.weight.shape[1:-1], projection.weight.shape[-1] * 2))
