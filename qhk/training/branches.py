"""The forward passes of one micro-batch: policy, degraded branch, reference; only those that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from qhk.objective.total import Branch, Needs
from qhk.policy.head import Head, HeadReadout, read_head, read_head_pair
from qhk.policy.packed import PackedTokens, encode_images, pack_tokens, packed_hidden
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.group import Group

HEAD_CHUNK = 2048
"""Positions whose full-vocabulary logits exist at one time."""


@dataclass(frozen=True, kw_only=True)
class Branches:
    """All branches of a micro-batch in padded form (R, T); see ``total_loss`` for what each is."""

    mask: Tensor
    original: Branch
    degraded: Branch | None
    exact_kl: Tensor | None
    reference_logprobs: Tensor | None


def _branch(tokens: PackedTokens, readout: HeadReadout) -> Branch:
    entropy = None if readout.entropy is None else tokens.pad(readout.entropy)
    return Branch(logprobs=tokens.pad(readout.logprobs), entropy=entropy)


def _twin_hidden(
    model: Any, groups: Sequence[Group], completions: list[list[Tensor]], *, gradient: bool
) -> Tensor:
    twins = [group.twin for group in groups if group.twin is not None]
    assert len(twins) == len(groups), "a branch that needs twins is not reached without them"
    with nullcontext() if gradient else torch.no_grad():
        return packed_hidden(model, twins, completions, features=None)


def _read_both(
    head: Head,
    original: Tensor,
    degraded: Tensor | None,
    targets: Tensor,
    *,
    needs: Needs,
    temperature: float,
    measure: bool,
) -> tuple[HeadReadout, HeadReadout | None, Tensor | None]:
    """Readouts of the original and the degraded branch, and their exact KL where it is wanted."""
    read = partial(read_head, head, temperature=temperature, chunk=HEAD_CHUNK)
    if degraded is not None and (needs.exact_kl or measure):
        return read_head_pair(head, original, degraded, targets, temperature=temperature, chunk=HEAD_CHUNK)
    first = read(original, targets, with_entropy=needs.original_entropy or measure)
    if degraded is None:
        return first, None, None
    with nullcontext() if needs.degraded_gradient else torch.no_grad():
        return first, read(degraded, targets, with_entropy=needs.degraded_entropy), None


def run_branches(
    model: Any,
    reference: Any | None,
    groups: Sequence[Group],
    *,
    needs: Needs,
    temperature: float,
    measure: bool,
) -> Branches:
    """What the loss needs of these groups, and with ``measure`` what the log wants besides.

    ``measure`` adds the entropies and the perception KL without gradient where no term asks for them.
    Gradient flows through the original branch, and through the degraded one where ``needs`` says so.
    """
    completions = [group.completion_ids for group in groups]
    tokens = pack_tokens(completions, device=model.device)
    prompts = [group.prompt for group in groups]
    features = _frozen_features(model, prompts)
    original = packed_hidden(model, prompts, completions, features=features)
    twin_hidden = None
    if needs.degraded or (measure and all(group.twin is not None for group in groups)):
        twin_hidden = _twin_hidden(model, groups, completions, gradient=needs.degraded_gradient)
    first, second, divergence = _read_both(
        model.lm_head,
        original,
        twin_hidden,
        tokens.targets,
        needs=needs,
        temperature=temperature,
        measure=measure,
    )
    reference_logprobs = None
    if needs.reference:
        assert reference is not None
        reference_logprobs = tokens.pad(
            logprobs_of(reference, groups, tokens, temperature=temperature, features=features)
        )
    return Branches(
        mask=tokens.mask(),
        original=_branch(tokens, first),
        degraded=None if second is None else _branch(tokens, second),
        exact_kl=None if divergence is None else tokens.pad(divergence),
        reference_logprobs=reference_logprobs,
    )


@torch.no_grad()
def _frozen_features(model: Any, prompts: Sequence[EncodedPrompt]) -> Tensor | None:
    """Image features that policy and reference share because neither learns its tower; None if it learns."""
    frozen = not any(parameter.requires_grad for parameter in model.model.visual.parameters())
    return encode_images(model, prompts) if frozen else None


@torch.no_grad()
def logprobs_of(
    model: Any,
    groups: Sequence[Group],
    tokens: PackedTokens,
    *,
    temperature: float,
    features: Tensor | None = None,
) -> Tensor:
    """(N,) log-probabilities of the groups' completion tokens, without gradient."""
    completions = [group.completion_ids for group in groups]
    hidden = packed_hidden(model, [group.prompt for group in groups], completions, features=features)
    readout = read_head(
        model.lm_head, hidden, tokens.targets, temperature=temperature, with_entropy=False, chunk=HEAD_CHUNK
    )
    return readout.logprobs
