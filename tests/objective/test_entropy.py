from __future__ import annotations

import math

import pytest
import torch

from qhk.objective.entropy import categorical_entropy


def test_uniform_and_certain() -> None:
    logits = torch.tensor([[2.0] * 4, [100.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert categorical_entropy(logits).tolist() == pytest.approx([math.log(4), 0.0], abs=1e-12)


def test_equals_torch_distributions_and_has_a_gradient() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        categorical_entropy(logits), torch.distributions.Categorical(logits=logits).entropy()
    )
    assert torch.autograd.gradcheck(categorical_entropy, logits.requires_grad_())


def test_tokens_ruled_out_add_nothing_and_poison_nothing() -> None:
    logits = torch.tensor([[0.5, -torch.inf, 0.5]], dtype=torch.float64, requires_grad=True)
    entropy = categorical_entropy(logits)
    assert entropy.item() == pytest.approx(math.log(2))
    assert torch.autograd.grad(entropy.sum(), logits)[0].isfinite().all()


def test_low_precision_is_computed_in_float32() -> None:
    assert categorical_entropy(torch.zeros(1, 8, dtype=torch.bfloat16)).dtype == torch.float32
