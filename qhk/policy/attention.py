"""Group attention: completions that share one encoded prompt, as one attention function.

The function is registered with transformers under one name, together with a mask function: a name
without its mask function would be handed no mask at all for ordinary left-padded batches, silently.
What a call means is told by the keyword it receives, which transformers passes through unchanged:

- ``packing``: one row holds several groups, ``[prompt][completion]...``; every completion attends to
  its own prompt and to itself (scoring and training).
- ``decoding``: one new token per row, against the prompt's keys and values kept once per group.
- neither: ordinary scaled dot-product attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUP_ATTENTION = "group"


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where the prompts and completions of several groups lie in one packed row of L tokens.

    ``prompt_index`` (B, P) and ``completion_index`` (N, C) hold token positions in the row, padded on
    the right with position 0; ``prompt_lengths`` and ``completion_lengths`` say how much of each is
    real. ``owner`` (N,) is the group of each completion. ``scatter`` (L,) takes the concatenation of
    the flattened padded prompts and completions back to row order. ``predictors`` (tokens,) are the row
    positions that predict each completion token. ``allowed`` (N, 1, C, P + C) is the explicit mask, needed
    only where prompts have unequal lengths.
    """

    prompt_index: Tensor
    completion_index: Tensor
    owner: Tensor
    scatter: Tensor
    prompt_lengths: tuple[int, ...]
    completion_lengths: tuple[int, ...]
    predictors: Tensor
    allowed: Tensor | None


def _padded_ranges(starts: Sequence[int], lengths: Sequence[int], device: torch.device) -> Tensor:
    """(n, max length) token positions ``start + 0, 1, ...``; 0 beyond each length."""
    width = max(lengths, default=0)
    offsets = torch.arange(width)
    index = torch.tensor(starts)[:, None] + offsets
    return torch.where(offsets < torch.tensor(lengths)[:, None], index, 0).to(device)


def build_packing(
    prompt_lengths: Sequence[int], completion_lengths: Sequence[Sequence[int]], *, device: torch.device
) -> Packing:
    """Return the layout of one packed row: for each group its prompt, then its completions.

    ``completion_lengths[i]`` are the lengths of group i's completions; a group may have none (a
    prompt to be encoded only), but a completion has at least one token.
    """
    prompt_starts, completion_starts, lengths, owner, predictors = [], [], [], [], list[int]()
    cursor = 0
    for group, (prompt_length, group_lengths) in enumerate(
        zip(prompt_lengths, completion_lengths, strict=True)
    ):
        prompt_starts.append(cursor)
        cursor += prompt_length
        last_prompt = cursor - 1
        for length in group_lengths:
            assert length > 0, "a completion holds at least the token that ended it"
            completion_starts.append(cursor)
            lengths.append(length)
            owner.append(group)
            predictors += [last_prompt, *range(cursor, cursor + length - 1)]
            cursor += length
    prompts, width = len(prompt_starts), max(prompt_lengths)
    scatter = torch.empty(cursor, dtype=torch.long)
    for row, (start, length) in enumerate(zip(prompt_starts, prompt_lengths, strict=True)):
        scatter[start : start + length] = row * width + torch.arange(length)
    completion_width = max(lengths, default=0)
    for row, (start, length) in enumerate(zip(completion_starts, lengths, strict=True)):
        scatter[start : start + length] = prompts * width + row * completion_width + torch.arange(length)
    allowed = None
    if lengths and len(set(prompt_lengths)) > 1:
        own_prompt = torch.tensor([prompt_lengths[group] for group in owner])
        prefix = (torch.arange(width) < own_prompt[:, None])[:, None, :].expand(-1, completion_width, -1)
        causal = torch.ones(completion_width, completion_width, dtype=torch.bool).tril()
        allowed = torch.cat([prefix, causal.expand(len(lengths), -1, -1)], dim=-1)[:, None].to(device)
    return Packing(
        prompt_index=_padded_ranges(prompt_starts, prompt_lengths, device),
        completion_index=_padded_ranges(completion_starts, lengths, device),
        owner=torch.tensor(owner, dtype=torch.long, device=device),
        scatter=scatter.to(device),
        prompt_lengths=tuple(prompt_lengths),
        completion_lengths=tuple(lengths),
        predictors=torch.tensor(predictors, dtype=torch.long, device=device),
        allowed=allowed,
    )


class Decoding(Protocol):
    """Keys and values of a decoding batch, layer by layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> Tensor:
        """Return (rows, heads, 1, head size) attention output of the newest token of each row."""
        ...


class PromptCache(Protocol):
    """Receives the keys and values of the encoded prompts, layer by layer."""

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None: ...


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, *, packing: Packing, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the attention output (1, heads, L, head size), and the prompts' keys and values.

    The latter are (B, kv heads, P, size) each.

    Prompts attend causally to themselves; each completion attends to its own prompt and causally to
    itself. Equal, value for value, to giving every completion a row of its own.
    """

    def gather(tensor: Tensor, index: Tensor) -> Tensor:
        return tensor[0][:, index].transpose(0, 1)  # (n, heads, width, size)

    prompt_key, prompt_value = gather(key, packing.prompt_index), gather(value, packing.prompt_index)
    prompt_output = scaled_dot_product_attention(
        gather(query, packing.prompt_index),
        prompt_key,
        prompt_value,
        is_causal=True,
        scale=scaling,
        enable_gqa=True,
    )
    pieces = [prompt_output.transpose(1, 2).flatten(0, 1)]  # (B * P, heads, size)
    if packing.completion_lengths:
        own_key = torch.cat([prompt_key[packing.owner], gather(key, packing.completion_index)], dim=2)
        own_value = torch.cat([prompt_value[packing.owner], gather(value, packing.completion_index)], dim=2)
        width = packing.completion_index.shape[1]
        bias = packing.allowed if packing.allowed is not None else causal_lower_right(width, own_key.shape[2])
        completion_query = gather(query, packing.completion_index)
        output = scaled_dot_product_attention(
            completion_query, own_key, own_value, attn_mask=bias, scale=scaling, enable_gqa=True
        )
        pieces.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(pieces)[packing.scatter][None], prompt_key, prompt_value


def group_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packing: Packing | None = None,
    prompt_cache: PromptCache | None = None,
    decoding: Decoding | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Return attention output (batch, length, heads, head size), in transformers' attention-function form."""
    if packing is None and decoding is None:
        output: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return output
    assert attention_mask is None and scaling is not None
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if decoding is not None:
        return decoding.attend(layer, query, key, value, scaling=scaling).transpose(1, 2).contiguous(), None
    assert packing is not None
    packed, prompt_key, prompt_value = packed_attention(query, key, value, packing=packing, scaling=scaling)
    if prompt_cache is not None:
        prompt_cache.keep(layer, prompt_key, prompt_value)
    return packed, None


def register_group_attention() -> None:
    """Register the name ``group`` with transformers, for the attention function and the mask function."""
    AttentionInterface.register(GROUP_ATTENTION, group_attention)
    AttentionMaskInterface.register(GROUP_ATTENTION, sdpa_mask)
