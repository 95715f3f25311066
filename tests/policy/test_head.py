"""The head: what waits for the backward pass in memory, and that computing it anew changes no gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from qhk.policy.head import read_head, read_head_pair
from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt
from qhk.training import forward
from qhk.training.memory import HEAD_TENSORS
from tests.training.test_forward import EVERYTHING, branches_loss, micro_batch

ROWS, WORDS, WIDTH = 48, 20_000, 8
Encode = Callable[[int, int], EncodedPrompt]


def kept_bytes(compute: Callable[[], object], head: Any) -> int:
    """The bytes of all tensors over the vocabulary, but the weights, that wait for the backward pass."""
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        is_wide = tensor.is_floating_point() and tensor.shape[1:] == (head.out_features,)
        if is_wide and place != head.weight.untyped_storage().data_ptr():
            found[place] = tensor.nbytes
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = compute()
    assert kept is not None
    return sum(found.values())


@pytest.fixture
def head() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(WIDTH, WORDS, bias=False)


def test_one_branch_that_is_read_last_keeps_its_logits(head: torch.nn.Linear) -> None:
    hidden, targets = torch.randn(ROWS, WIDTH, requires_grad=True), torch.arange(ROWS)

    def read(is_last: bool, chunk: int) -> int:
        return kept_bytes(
            lambda: read_head(
                head, hidden, targets, temperature=0.7, with_entropy=True, chunk=chunk, is_last=is_last
            ),
            head,
        )

    one = ROWS * WORDS * 4
    assert read(True, ROWS) == HEAD_TENSORS["single"] * one
    assert read(False, ROWS) == 0 and read(True, ROWS - 1) == 0


def test_a_pair_in_chunks_keeps_no_logits(head: torch.nn.Linear) -> None:
    first, second = (torch.randn(ROWS, WIDTH, requires_grad=True) for _ in range(2))

    def read(chunk: int) -> int:
        return kept_bytes(
            lambda: read_head_pair(head, first, second, torch.arange(ROWS), temperature=1.0, chunk=chunk),
            head,
        )

    one = ROWS * WORDS * 4
    assert read(ROWS) == HEAD_TENSORS["pair"] * one
    assert read(ROWS // 2) == 0


@pytest.mark.parametrize("exact", [True, False])
def test_the_two_branches_of_a_micro_batch_never_keep_both_logits(
    policy: Policy, encode: Encode, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With entropies of both, but no exact KL, the heads are read one after the other."""
    part, needs = micro_batch(policy, encode), replace(EVERYTHING, exact_kl=exact)
    head = policy.model.lm_head
    one = len(part.packed.targets) * head.out_features * 8

    def kept() -> int:
        return kept_bytes(lambda: branches_loss(policy, part, needs=needs, checkpointing=False), head)

    whole = kept()
    assert whole == one * HEAD_TENSORS["pair" if exact else "single"]
    monkeypatch.setattr(forward, "head_chunk", lambda vocabulary, form: 16)
    assert kept() == 0


@pytest.mark.parametrize("exact", [True, False])
def test_logits_computed_anew_give_the_same_gradient(
    policy: Policy, encode: Encode, full_precision: None, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, needs = micro_batch(policy, encode), replace(EVERYTHING, exact_kl=exact)
    asked = list[str]()

    def gradients(chunk: int) -> dict[str, Tensor]:
        monkeypatch.setattr(forward, "head_chunk", lambda vocabulary, form: asked.append(form) or chunk)
        policy.model.zero_grad()
        branches_loss(policy, part, needs=needs, checkpointing=False).backward()
        return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}

    whole, parts = gradients(1024), gradients(7)
    monkeypatch.setattr(forward, "read_head", lambda *args, is_last=True, **named: read_head(*args, **named))
    kept = gradients(1024)
    assert ("pair" in asked) is exact
    assert len(whole) > 30 and all(torch.equal(whole[name], kept[name]) for name in whole)
    assert all(torch.allclose(whole[name], parts[name], rtol=0, atol=1e-11) for name in whole)
