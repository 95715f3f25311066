"""Two threads add gradients up in one order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from qhk.policy.packed import encode_images, pack_groups, packed_hidden
from qhk.training.loop import add_in_order
from tests.conftest import MESSAGES, build_policy, picture


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("two_threads")
def test_gradients_are_equal_bit_for_bit() -> None:
    """Every completion adds to its prompt's keys and values, at this size from both threads."""
    policy = build_policy(dtype=torch.float32)
    prompt = policy.encoder.encode(MESSAGES, [picture(96, 96)])
    completions = list(torch.randint(0, 60, (96, 8), generator=torch.Generator().manual_seed(0)))
    row = pack_groups([prompt], [completions], device=policy.model.device)
    parameters = [weight for weight in policy.model.parameters() if weight.requires_grad]

    def gradients() -> list[torch.Tensor]:
        hidden = packed_hidden(policy.model, row, encode_images(policy.model, [prompt]))
        return list(torch.autograd.grad(hidden.square().sum(), parameters, materialize_grads=True))

    add_in_order("cpu")
    first = gradients()
    for _ in range(5):
        assert all(map(torch.equal, first, gradients()))
