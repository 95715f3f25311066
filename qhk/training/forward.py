"""The forward passes of one micro-batch: policy, degraded image, reference; only those that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qhk.objective.total import Branch, Needs
from qhk.policy.adapter import at_reference
from qhk.policy.families import family_of
from qhk.policy.head import read_head, read_head_pair
from qhk.policy.packed import PackedGroups, encode_images, pack_groups, packed_hidden
from qhk.policy.prompt import EncodedPrompt
from qhk.rollout.decode import Group
from qhk.training.batch import Batch
from qhk.training.kept import Kept
from qhk.training.memory import head_chunk
from qhk.training.sharding import run_in_forward


@dataclass(frozen=True, kw_only=True)
class Images:
    """The pictures of a micro-batch on the device: what has been computed of them, or else their pixels.

    ``features`` are those of a frozen vision tower, which every model and every update shares. A tower that
    learns has other weights in each update, and another model than the policy has weights of its own: then
    ``features`` is None and the pixels of ``prompts`` go through the model that asks. ``sampled`` are the
    features, with gradient, that such a tower gave the rollout; the first update goes on from them.
    """

    prompts: Sequence[EncodedPrompt]
    features: Tensor | None
    sampled: Tensor | None = None

    def encoded_by(self, model: Any) -> Tensor:
        """Return (image tokens, hidden) features for ``model``."""
        return encode_images(model, self.prompts) if self.features is None else self.features

    def encoded_by_policy(self, model: Any) -> Tensor:
        """Return the same for the policy, whose weights are those that sampled as long as ``sampled`` is."""
        return self.encoded_by(model) if self.sampled is None else self.sampled


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What the forward passes of a few groups share, made once per step.

    ``rows`` are their places among this process's groups; ``degraded`` is None where no term needs it.
    """

    rows: slice
    packed: PackedGroups
    original: Images
    degraded: Images | None

    def after_an_update(self) -> MicroBatch:
        """Return what is still true once the policy's weights have changed."""
        return replace(self, original=replace(self.original, sampled=None))


def vision_is_frozen(model: Any) -> bool:
    """Return whether no weight of the vision tower learns, so that image features stay as they are."""
    return not any(weight.requires_grad for weight in family_of(model).vision_weights(model))


def micro_slices(count: int, size: int) -> list[slice]:
    """Return the places of ``count`` prompts in micro-batches of ``size``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


@torch.no_grad()
def kept_features(model: Any, prompts: Sequence[EncodedPrompt], kept: Kept[Tensor]) -> list[Tensor]:
    """Return each prompt's (image tokens, hidden) features of a tower whose weights never change.

    What was found before comes from ``kept``, on the CPU. Each prompt is encoded by itself: features must not
    depend, in their last bits, on what shared a batch when a picture was first seen.
    """
    features = []
    for prompt in prompts:

        def encode(prompt: EncodedPrompt = prompt) -> Tensor:
            return encode_images(model, [prompt])

        found = kept.get(prompt.key, lambda: encode().cpu(), size=nbytes) if prompt.key else encode()
        features.append(found.to(model.device))
    return features


def nbytes(tensor: Tensor) -> int:
    """Return the memory of a tensor."""
    return tensor.nbytes


@torch.no_grad()
def frozen_features(
    model: Any, prompts: Sequence[EncodedPrompt], *, size: int, kept: Kept[Tensor]
) -> list[Tensor]:
    """Return each prompt's (image tokens, hidden) features of a frozen tower, ``size`` prompts at a time.

    Or one at a time, and each once, where features are ``kept``.
    """
    if kept.limit_mib:
        return kept_features(model, prompts, kept)
    features: list[Tensor] = []
    for rows in micro_slices(len(prompts), size):
        lengths = [int(prompt.is_image.sum()) for prompt in prompts[rows]]
        encoded = run_in_forward(model, partial(encode_images, model, prompts[rows]))
        features += torch.split(encoded, lengths)
    return features


def learning_features(model: Any, prompts: Sequence[EncodedPrompt]) -> list[Tensor]:
    """Return each prompt's (image tokens, hidden) features with gradient, all encoded together."""
    lengths = [int(prompt.is_image.sum()) for prompt in prompts]
    return list(torch.split(encode_images(model, prompts), lengths))


def make_micro_batches(
    model: Any, batch: Batch, *, size: int, with_degraded: bool, kept: Kept[Tensor]
) -> list[MicroBatch]:
    """Return the batch's groups in micro-batches of ``size``, on the model's device."""
    degraded, degraded_features, frozen = batch.degraded, list[Tensor](), vision_is_frozen(model)
    if with_degraded:
        assert len(degraded) == len(batch), "a term that needs the degraded twins is not reached without them"
        degraded_features = frozen_features(model, degraded, size=size, kept=kept) if frozen else []

    def images(prompts: Sequence[EncodedPrompt], features: Sequence[Tensor], rows: slice) -> Images:
        known = torch.cat(list(features[rows])) if features else None
        if frozen:
            return Images(prompts=(), features=known)
        on_device = [prompt.pixels_on(model.device) for prompt in prompts[rows]]
        return Images(prompts=on_device, features=None, sampled=known)

    return [
        MicroBatch(
            rows=rows,
            packed=pack_groups(
                batch.prompts[rows],
                [group.completion_ids for group in batch.groups[rows]],
                device=model.device,
            ),
            original=images(batch.prompts, batch.features, rows),
            degraded=images(degraded, degraded_features, rows) if with_degraded else None,
        )
        for rows in micro_slices(len(batch), size)
    ]


def token_logprobs(model: Any, packed: PackedGroups, features: Tensor, *, temperature: float) -> Tensor:
    """Return (N,) log-probabilities of the completion tokens in nats, with gradient where it is enabled."""
    hidden = packed_hidden(model, packed, features)
    return read_head(
        model.lm_head,
        hidden,
        packed.targets,
        temperature=temperature,
        with_entropy=False,
        chunk=head_chunk(model.lm_head.out_features, "single"),
    ).logprobs


@torch.no_grad()
def present_logprobs(model: Any, part: MicroBatch, *, temperature: float) -> Tensor:
    """Return (R, T) log-probabilities of the completions under a model as it is now, without gradient."""

    def logprobs() -> Tensor:
        features = part.original.encoded_by(model)
        return token_logprobs(model, part.packed, features, temperature=temperature)

    return part.packed.pad(run_in_forward(model, logprobs))


def reference_logprobs(reference: Any, part: MicroBatch, *, temperature: float, kept: Kept[Tensor]) -> Tensor:
    """Return (R, T) log-probabilities of the completions under the frozen reference.

    With an adapter that is the policy's own model, which computes here what the adapter started from. Its
    tower never learns, so its features are ``kept`` where the policy's are not those.
    """
    with at_reference(reference):
        if kept.limit_mib and part.original.features is None:
            features = torch.cat(kept_features(reference, part.original.prompts, kept))
            part = replace(part, original=replace(part.original, features=features))
        return present_logprobs(reference, part, temperature=temperature)


def sampled_logprobs(part: MicroBatch, groups: Sequence[Group]) -> Tensor:
    """Return (R, T) log-probabilities that the completions were sampled with, on the micro-batch's device."""
    sampled = torch.cat([own for group in groups[part.rows] for own in group.logprobs])
    return part.packed.pad(sampled.to(part.packed.targets.device))


def policy_branches(
    model: Any,
    part: MicroBatch,
    *,
    needs: Needs,
    temperature: float,
    measure: bool,
    branch_checkpointing: bool = False,
) -> tuple[Branch, Branch | None, Tensor | None]:
    """Return the original image's branch, the degraded one's, and their exact KL, in padded form (R, T).

    The last two are None where nothing needs them. ``measure`` adds the entropies and the perception KL for
    the log where no term asks for them. Gradient flows through the original branch, and through the degraded
    one where ``needs`` says so. With ``branch_checkpointing`` the activations of one of them are alive at a
    time: those of the original, which the backward pass comes to last, are computed anew there.
    """
    packed, head = part.packed, model.lm_head
    chunk = head_chunk(head.out_features, "single")

    def hidden_of(images: Images) -> Tensor:
        return packed_hidden(model, packed, images.encoded_by_policy(model))

    if branch_checkpointing and part.degraded is not None and needs.degraded_gradient:
        original = checkpoint(hidden_of, part.original, use_reentrant=False, preserve_rng_state=False)
    else:
        original = hidden_of(part.original)
    if part.degraded is None or not (needs.degraded or measure):
        branch = read_head(
            head,
            original,
            packed.targets,
            temperature=temperature,
            with_entropy=needs.original_entropy or measure,
            chunk=chunk,
        )
        return _padded(packed, branch), None, None
    with nullcontext() if needs.degraded_gradient else torch.no_grad():
        degraded = hidden_of(part.degraded)
    if needs.exact_kl or measure:
        # Both heads in one pass: the two distributions over the vocabulary never exist for all positions.
        first, second, divergence = read_head_pair(
            head,
            original,
            degraded,
            packed.targets,
            temperature=temperature,
            chunk=head_chunk(head.out_features, "pair"),
        )
        return _padded(packed, first), _padded(packed, second), packed.pad(divergence)
    # The logits of the one are given up before those of the other exist, with a gradient or without.
    first = read_head(
        head,
        original,
        packed.targets,
        temperature=temperature,
        with_entropy=needs.original_entropy,
        chunk=chunk,
        is_last=False,
    )
    with nullcontext() if needs.degraded_gradient else torch.no_grad():
        second = read_head(
            head,
            degraded,
            packed.targets,
            temperature=temperature,
            with_entropy=needs.degraded_entropy,
            chunk=chunk,
        )
    return _padded(packed, first), _padded(packed, second), None


def _padded(packed: PackedGroups, branch: Branch) -> Branch:
    entropy = None if branch.entropy is None else packed.pad(branch.entropy)
    return Branch(logprobs=packed.pad(branch.logprobs), entropy=entropy)
