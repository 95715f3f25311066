"""Attention of the vision tower: all windows of one length in one call.

Most blocks of a Qwen2.5-VL's tower attend within windows of 8 x 8 patches, smaller ones at the edges of a
picture. Transformers calls the attention function once per window, some two thousand times for a picture of a
megapixel; here it is called once per length of window, four times a block. Equal, value for value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

WINDOW_ATTENTION = "windows"


def window_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    windows: Tensor,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return (1, patches, heads, head size) of queries, keys and values (1, heads, patches, head size).

    ``windows`` (n + 1,) are the places between which patches attend to each other, from 0 to their number.
    """
    assert attention_mask is None
    lengths = windows.diff()
    # Windows by length: the patches of equal ones then lie side by side.
    by_length, chosen = lengths.sort(stable=True)
    sizes, counts = by_length.unique_consecutive(return_counts=True)  # type: ignore[no-untyped-call]
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]  # (patches, heads, head size)
    order = None
    if len(sizes) > 1:
        shift = windows[:-1][chosen] - (by_length.cumsum(0) - by_length)
        order = torch.repeat_interleave(shift, by_length) + torch.arange(len(rows[0]), device=shift.device)
        rows = [tensor.index_select(0, order) for tensor in rows]
    pieces, start = list[Tensor](), 0
    for length, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = slice(start, start := start + count * length)
        shape = (count, length, *rows[0].shape[1:])
        q, k, v = (tensor[own].reshape(shape).transpose(1, 2) for tensor in rows)
        output = scaled_dot_product_attention(q, k, v, scale=scaling)
        pieces.append(output.transpose(1, 2).flatten(0, 1))
    output = torch.cat(pieces) if order is not None else pieces[0]
    return (output if order is None else output.index_select(0, order.argsort()))[None], None


def attend_in_windows(visual: nn.Module) -> None:
    """Let the blocks of a vision tower hand all their windows to one call of ``window_attention``."""
    for block in visual.blocks:  # type: ignore[union-attr]
        block.attn.register_forward_pre_hook(_as_one_window, with_kwargs=True)


def _as_one_window(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    # Under another attention function, and where it has been done, the arguments stay as they are.
    if module.config._attn_implementation != WINDOW_ATTENTION or "windows" in named:  # type: ignore[union-attr]
        return inputs, named
    windows = named["cu_seqlens"]
    return inputs, {**named, "cu_seqlens": windows[[0, -1]], "windows": windows}


def register_window_attention() -> None:
    """Register the name ``windows`` with transformers, for the attention function and the mask function."""
    AttentionInterface.register(WINDOW_ATTENTION, window_attention)
    AttentionMaskInterface.register(WINDOW_ATTENTION, sdpa_mask)
