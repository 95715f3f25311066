"""Sampling: each prompt is encoded once, then many groups decode together.

Every random number is drawn before decoding from the prompt's own stream, so a completion does not
depend on which other prompts happen to share its batch, but for the rounding of their common products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qhk.policy.families import family_of
from qhk.policy.packed import encode_images, encode_prompts, repeated_prompt_states, run_text_model
from qhk.policy.prompt import EncodedPrompt
from qhk.policy.repeated import generate_rows

COMPACT_BELOW = 0.75
"""Rows are regrouped once finished ones leave less than this share of them in use."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """G completions of one prompt.

    ``completion_ids`` are 1-d tensors that include the end token where one was sampled; ``logprobs``
    are their log-probabilities under the sampling distribution; ``truncated`` is true where the length
    limit came first.
    """

    completion_ids: list[Tensor]
    logprobs: list[Tensor]
    truncated: list[bool]

    @property
    def num_tokens(self) -> int:
        """Return the number of completion tokens of the whole group."""
        return sum(len(ids) for ids in self.completion_ids)

    def part(self, first: int, behind: int) -> Group:
        """Return the group of the completions from ``first`` to before ``behind``."""
        own = slice(first, behind)
        return Group(
            completion_ids=self.completion_ids[own],
            logprobs=self.logprobs[own],
            truncated=self.truncated[own],
        )


class EncodedPrompts:
    """B prompts that went through the model once: what all that follows them needs, however often.

    ``layers`` holds of each layer keys (B, kv heads, head size, longest prompt) and values (B, kv heads,
    longest prompt, head size), ``lengths`` (B,) the real tokens of each prompt, ``next_positions`` (B,) the
    positions behind them and ``hidden`` (B, hidden size) the states that predict the first token of a
    completion. Nothing changes them later.

    Keys and values are kept in float32 at least: scores rounded to bfloat16 would make the distribution that
    is sampled from another than the one that the training forward, which accumulates widely, assigns.
    """

    def __init__(self, model: Any, prompts: Sequence[EncodedPrompt], features: Tensor) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.lengths = torch.tensor([prompt.num_tokens for prompt in prompts], device=model.device)
        self.hidden = encode_prompts(model, prompts, features, prompt_cache=self)
        self.next_positions = torch.tensor([prompt.next_position for prompt in prompts], device=model.device)

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        assert layer == len(self.layers)
        # Flattening copies once what lies head by head; the products would do it at every step.
        turned = wide(key).transpose(2, 3)
        turned = turned.flatten(0, 1).view(turned.shape)
        self.layers.append((turned, wide(value).contiguous()))


class RepeatedPrompts:
    """B prompts of a model without packed rows, which encodes them anew for all that follows them.

    ``features`` holds each prompt's (image tokens, width) features, ``hidden`` (B, hidden size) the states
    that predict the first token of a completion.
    """

    def __init__(self, model: Any, prompts: Sequence[EncodedPrompt], features: Tensor) -> None:
        self.prompts = list(prompts)
        self.features = torch.split(features, [int(prompt.is_image.sum()) for prompt in prompts])
        self.hidden = repeated_prompt_states(model, prompts, features)


def encode_for_decoding(
    model: Any, prompts: Sequence[EncodedPrompt], features: Tensor
) -> EncodedPrompts | RepeatedPrompts:
    """Return the prompts as what follows them needs them: encoded once, or repeated where it must be."""
    encoded = RepeatedPrompts if family_of(model).slow_because else EncodedPrompts
    return encoded(model, prompts, features)


class GroupCache:
    """Keys and values while groups decode: the prompts' kept once per group, the completions' per row.

    Rows form a rectangle of ``groups`` x ``size``; :meth:`regroup` shrinks it as rows finish.
    """

    def __init__(self, prompts: EncodedPrompts, *, group_size: int, max_new_tokens: int) -> None:
        self.prompt = list(prompts.layers)
        self.prompt_lengths = prompts.lengths
        self.is_ragged = len(set(prompts.lengths.tolist())) > 1
        self.size, self.length = group_size, 0
        self.own: list[tuple[Tensor, Tensor]] = []
        for _, value in self.prompt:
            shape = (value.shape[0] * group_size, value.shape[1], max_new_tokens, value.shape[3])
            self.own.append((value.new_empty(shape), value.new_empty(shape)))

    def regroup(self, groups: Tensor, rows: Tensor) -> None:
        """Keep the given groups (B',) and, of the old rows, those in ``rows`` (B', G')."""
        # Keys lie by position from here on, which costs no copy either; how they lie decides how sums round.
        self.prompt = [
            (key.transpose(2, 3)[groups].contiguous().transpose(2, 3), value[groups])
            for key, value in self.prompt
        ]
        self.own = [(key[rows.flatten()], value[rows.flatten()]) for key, value in self.own]
        self.prompt_lengths = self.prompt_lengths[groups]
        self.size = rows.shape[1]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> Tensor:
        """Return (rows, heads, 1, head size): the newest token over its group's prompt and its own past."""
        prompt_key, prompt_value = self.prompt[layer]
        own_key, own_value = self.own[layer]
        now = self.length
        own_key[:, :, now], own_value[:, :, now] = (
            key[:, :, 0].to(own_key.dtype),
            value[:, :, 0].to(own_key.dtype),
        )
        groups, kv_heads, prompt_width, size = prompt_value.shape
        rows, heads = query.shape[0], query.shape[1]
        share = heads // kv_heads
        per_row = wide(query).reshape(rows, kv_heads, share, size) * scaling
        per_group = per_row.view(groups, self.size, kv_heads, share, size).transpose(1, 2).flatten(2, 3)
        prompt_scores = per_group @ prompt_key
        if self.is_ragged:
            padding = torch.arange(prompt_width, device=query.device) >= self.prompt_lengths[:, None]
            prompt_scores = prompt_scores.masked_fill(padding[:, None, None], float("-inf"))
        prompt_scores = prompt_scores.view(groups, kv_heads, self.size, share, prompt_width)
        own_scores = per_row @ own_key[:, :, : now + 1].transpose(2, 3)
        own_scores = own_scores.view(groups, self.size, kv_heads, share, now + 1).transpose(1, 2)
        weights = torch.cat([prompt_scores, own_scores], dim=-1).softmax(-1)
        from_prompt = weights[..., :prompt_width].flatten(2, 3) @ prompt_value
        from_prompt = from_prompt.view(groups, kv_heads, self.size, share, size).transpose(1, 2)
        own_weights = weights[..., prompt_width:].transpose(1, 2).reshape(rows, kv_heads, share, now + 1)
        from_own = own_weights @ own_value[:, :, : now + 1]
        return (from_prompt.reshape(rows, heads, 1, size) + from_own.reshape(rows, heads, 1, size)).to(
            query.dtype
        )


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def draw(logits: Tensor, uniforms: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return (rows,) tokens and their log-probabilities under softmax(logits / temperature).

    Inverse-CDF sampling in float64 from one uniform number per row; temperature 0 takes the most likely
    token (log-probability at temperature 1). Nothing else shapes the distribution: no top-k, no top-p,
    no penalty, and nothing is read from a checkpoint's generation config.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    logprobs = (logits / temperature).log_softmax(-1)
    tokens = _inverse(logprobs, uniforms)
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


def _inverse(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """(rows,) the token at which the cumulative probability first exceeds each uniform number."""
    cumulative = logprobs.double().exp().cumsum(-1)
    wanted = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True)[:, 0].clamp(max=logprobs.shape[1] - 1)


def draw_each(logits: Tensor, uniforms: Tensor, *, temperatures: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``draw`` returns where each row has a temperature (rows,) of its own."""
    temperatures = temperatures.to(logits.dtype if logits.dtype == torch.float64 else torch.float32)
    greedy = temperatures == 0
    scaled = wide(logits) / torch.where(greedy, 1.0, temperatures)[:, None]
    logprobs = scaled.log_softmax(-1)
    tokens = torch.where(greedy, scaled.argmax(-1), _inverse(logprobs, uniforms))
    return tokens, logprobs.gather(1, tokens[:, None])[:, 0]


class _Rows:
    """Which of the original B x G completions each decoding row is, and whether it still grows."""

    def __init__(self, groups: int, size: int, device: torch.device) -> None:
        self.ids = torch.arange(groups * size, device=device).view(groups, size)
        self.live = torch.ones(groups, size, dtype=torch.bool, device=device)

    def smaller(self) -> tuple[Tensor, Tensor] | None:
        """Return groups and rows to keep once enough have finished, else None."""
        counts = self.live.sum(1)
        groups = counts.nonzero()[:, 0]
        size = int(counts.max())
        if len(groups) * size > COMPACT_BELOW * self.ids.numel():
            return None
        # Living rows first; a group with fewer of them keeps finished ones as filling.
        order = self.live[groups].int().argsort(dim=1, descending=True, stable=True)[:, :size]
        rows = groups[:, None] * self.ids.shape[1] + order
        self.ids, self.live = self.ids[groups].gather(1, order), self.live[groups].gather(1, order)
        return groups, rows


@torch.no_grad()
def sample_groups(
    model: Any,
    prompts: Sequence[EncodedPrompt],
    uniforms: np.ndarray,
    *,
    temperature: float,
    end_tokens: Sequence[int],
    features: Tensor | None = None,
) -> list[Group]:
    """Return one group of G completions per prompt, from ``uniforms`` (B, G, max new tokens) in [0, 1).

    ``features`` are those of the prompts' images where they are known; None encodes the pixels here.
    """
    with for_decoding(model):
        features = encode_images(model, prompts) if features is None else features
        encoded = encode_for_decoding(model, prompts, features)
        return decode_groups(
            model, encoded, uniforms, temperatures=[temperature] * uniforms.shape[1], end_tokens=end_tokens
        )


@contextmanager
def for_decoding(model: Any) -> Iterator[None]:
    """Keep the model in evaluation mode: activation checkpointing would only slow the decoding down."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _repeat_groups(
    model: Any,
    encoded: RepeatedPrompts,
    uniforms: np.ndarray,
    *,
    temperatures: Sequence[float],
    end_tokens: Sequence[int],
) -> list[Group]:
    """One group per prompt by the model's own generation, from the same random numbers."""
    device = model.device
    count, group_size, limit = uniforms.shape
    numbers = torch.from_numpy(np.ascontiguousarray(uniforms)).to(device)
    each = torch.tensor(temperatures, dtype=torch.float64, device=device)
    tokens = torch.full((count, group_size, limit), end_tokens[0], device=device)
    logprobs = torch.zeros(count, group_size, limit, dtype=torch.float64, device=device)
    for place, prompt in enumerate(encoded.prompts):
        steps = iter(range(limit))

        def choose(logits: Tensor, place: int = place, steps: Iterator[int] = steps) -> Tensor:
            step = next(steps)
            drawn, own = draw_each(logits, numbers[place, :, step], temperatures=each)
            tokens[place, :, step], logprobs[place, :, step] = drawn, own.double()
            return drawn

        generate_rows(model, prompt, choose, rows=group_size, max_new_tokens=limit, end_tokens=end_tokens)
    ends = torch.isin(tokens, torch.tensor(list(end_tokens), device=device))
    ended = torch.where(ends.any(-1), ends.int().argmax(-1), limit).flatten()
    return _collect(tokens.flatten(0, 1), logprobs.flatten(0, 1), ended, count, group_size)


def decode_groups(
    model: Any,
    encoded: EncodedPrompts | RepeatedPrompts,
    uniforms: np.ndarray,
    *,
    temperatures: Sequence[float],
    end_tokens: Sequence[int],
) -> list[Group]:
    """Return one group per encoded prompt; its g-th completion is drawn at the g-th of ``temperatures``."""
    if isinstance(encoded, RepeatedPrompts):
        return _repeat_groups(model, encoded, uniforms, temperatures=temperatures, end_tokens=end_tokens)
    # Tensors without autograd's bookkeeping save a tenth of the time where models are small. What leaves is
    # copied outside: autograd could not keep such tensors.
    with torch.inference_mode():
        tokens, logprobs, ended = _decode(
            model, encoded, uniforms, temperatures=temperatures, end_tokens=end_tokens
        )
    return _collect(tokens, logprobs, ended, *uniforms.shape[:2])


def _decode(
    model: Any,
    encoded: EncodedPrompts,
    uniforms: np.ndarray,
    *,
    temperatures: Sequence[float],
    end_tokens: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """(B * G, limit) tokens and their log-probabilities, and (B * G,) where each ended, or the limit."""
    device = model.device
    count, group_size, max_new_tokens = uniforms.shape
    cache = GroupCache(encoded, group_size=group_size, max_new_tokens=max_new_tokens)
    next_positions = encoded.next_positions
    logits = model.lm_head(encoded.hidden).repeat_interleave(group_size, dim=0)
    numbers = (
        torch.from_numpy(np.ascontiguousarray(uniforms)).to(device).view(count * group_size, max_new_tokens)
    )
    each = torch.tensor(temperatures, dtype=torch.float64, device=device).repeat(count)
    ends = torch.tensor(list(end_tokens), device=device)
    tokens = torch.zeros(count * group_size, max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(count * group_size, max_new_tokens, dtype=torch.float64, device=device)
    ended = torch.full((count * group_size,), max_new_tokens, device=device)
    rows = _Rows(count, group_size, device)
    for step in range(max_new_tokens):
        ids = rows.ids.flatten()
        drawn, drawn_logprobs = (
            draw(logits, numbers[ids, step], temperature=temperatures[0])
            if len(set(temperatures)) == 1
            else draw_each(logits, numbers[ids, step], temperatures=each[ids])
        )
        # Of rows that have ended, which fill up a rectangle, everything behind the end is cut off later.
        tokens[ids, step], logprobs[ids, step] = drawn, drawn_logprobs.double()
        finished = rows.live.flatten() & torch.isin(drawn, ends)
        ended[ids[finished]] = step
        rows.live &= ~finished.view_as(rows.live)
        if step + 1 == max_new_tokens or not bool(rows.live.any()):
            break
        kept = rows.smaller()
        if kept is not None:
            groups, kept_rows = kept
            cache.regroup(groups, kept_rows)
            next_positions, drawn = next_positions[groups], drawn[kept_rows.flatten()]
        positions = (
            (next_positions[:, None] + step).expand(-1, cache.size).reshape(1, -1, 1).expand(3, -1, -1)
        )
        embeddings = model.get_input_embeddings()(drawn)[:, None]
        hidden = run_text_model(model, embeddings, positions, decoding=cache)
        cache.length += 1
        logits = model.lm_head(hidden[:, 0])
    return tokens, logprobs, ended


def _collect(tokens: Tensor, logprobs: Tensor, ended: Tensor, count: int, group_size: int) -> list[Group]:
    limit = tokens.shape[1]
    lengths = (ended + 1).clamp(max=limit).tolist()
    truncated = (ended == limit).tolist()
    tokens, logprobs = tokens.cpu(), logprobs.cpu()
    groups = []
    for first in range(0, count * group_size, group_size):
        own = range(first, first + group_size)
        groups.append(
            Group(
                completion_ids=[tokens[row, : lengths[row]].clone() for row in own],
                logprobs=[logprobs[row, : lengths[row]].clone() for row in own],
                truncated=[truncated[row] for row in own],
            )
        )
    return groups
