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

LOOK_EVERY = 8
"""Steps of a device between looks at which rows have ended: it would stand still at each of them."""


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

    Rows form a rectangle of ``groups`` x ``size``; :meth:`regroup` shrinks it as rows finish. Of each layer
    ``prompt`` holds keys (groups * kv heads, head size, longest prompt) and values (the last two turned), and
    ``own`` keys and values (groups, kv heads, size, max new tokens, head size): in this order one copy of the
    queries serves the products with both, and no weights are copied.
    """

    def __init__(self, prompts: EncodedPrompts, *, group_size: int, max_new_tokens: int) -> None:
        value = prompts.layers[0][1]  # all layers of the packed families are alike
        self.groups, self.kv_heads, self.prompt_width, self.head_size = value.shape
        self.size, self.length = group_size, 0
        self.prompt = [(key.flatten(0, 1), value.flatten(0, 1)) for key, value in prompts.layers]
        shape = (self.groups, self.kv_heads, group_size, max_new_tokens, self.head_size)
        self.own = [(value.new_empty(shape), value.new_empty(shape)) for _ in self.prompt]
        self.padding: Tensor | None = None
        if len(set(prompts.lengths.tolist())) > 1:
            columns = torch.arange(self.prompt_width, device=value.device)
            padding = columns >= prompts.lengths[:, None]
            self.padding = padding.repeat_interleave(self.kv_heads, 0)[:, None]

    def regroup(self, groups: Tensor, rows: Tensor) -> None:
        """Keep the given groups (B',) and, of the old rows, those in ``rows`` (B', G')."""
        heads = (
            groups[:, None] * self.kv_heads + torch.arange(self.kv_heads, device=groups.device)
        ).flatten()
        # Keys lie by position from here on, which costs no copy either; how they lie decides how sums round.
        self.prompt = [
            (key.transpose(1, 2)[heads].contiguous().transpose(1, 2), value[heads])
            for key, value in self.prompt
        ]
        # Advanced indices around a slice: (B', G', kv heads, ...), by head again once copied.
        places = (groups[:, None], slice(None), rows - groups[:, None] * self.size)
        self.own = [
            (key[places].transpose(1, 2).contiguous(), value[places].transpose(1, 2).contiguous())
            for key, value in self.own
        ]
        self.padding = None if self.padding is None else self.padding[heads]
        self.groups, self.size = rows.shape

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> Tensor:
        """Return (rows, heads, 1, head size): the newest token over its group's prompt and its own past."""
        prompt_key, prompt_value = self.prompt[layer]
        own_key, own_value = self.own[layer]
        groups, kv_heads, size, width = self.groups, self.kv_heads, self.size, self.prompt_width
        newest = (groups, size, kv_heads, self.head_size)
        own_key.select(3, self.length).transpose(1, 2).copy_(key.view(newest))
        own_value.select(3, self.length).transpose(1, 2).copy_(value.view(newest))
        seen = self.length + 1
        own_key = own_key.narrow(3, 0, seen).flatten(0, 2)
        own_value = own_value.narrow(3, 0, seen).flatten(0, 2)
        per_head = (wide(query) * scaling).view(groups, size, kv_heads, -1).transpose(1, 2).contiguous()
        per_group = per_head.view(groups * kv_heads, -1, self.head_size)
        per_row = per_head.view(len(own_key), -1, self.head_size)
        prompt_scores = torch.bmm(per_group, prompt_key)
        if self.padding is not None:
            prompt_scores.masked_fill_(self.padding, float("-inf"))
        own_scores = torch.bmm(per_row, own_key.transpose(1, 2))
        scores = torch.cat([prompt_scores, own_scores.view(*prompt_scores.shape[:2], seen)], dim=2)
        from_prompt, from_own = torch.split(scores.softmax(2), [width, seen], dim=2)
        output = torch.bmm(from_prompt, prompt_value).view(per_row.shape)
        output += torch.bmm(from_own.view(*per_row.shape[:2], seen), own_value)
        output = output.view(groups, kv_heads, size, -1).transpose(1, 2).reshape(query.shape)
        return output.to(query.dtype)


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 at least."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def draw(logits: Tensor, uniforms: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Return (rows,) tokens and their log-probabilities under softmax(logits / temperature).

    Inverse-CDF sampling in float64 from one uniform number per row; temperature 0 takes the most likely
    token (log-probability at temperature 1). Nothing else shapes the distribution: no top-k, no top-p,
    no penalty, and nothing is read from a checkpoint's generation config.
    """
    logits = wide(logits)
    if temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    logprobs = (logits if temperature == 1 else logits / temperature).log_softmax(-1)
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
    """Which of the original B x G completions each decoding row is, and where it ended.

    All of it lies on the host: the device is asked for tokens alone, when :meth:`look` is given them.
    ``ended`` (B * G,) is the step of each completion's end token, or the limit.
    """

    def __init__(self, groups: int, size: int, *, limit: int, end_tokens: Sequence[int]) -> None:
        self.ids = np.arange(groups * size).reshape(groups, size)
        self.live = np.ones((groups, size), dtype=bool)
        self.ended = np.full(groups * size, limit)
        self.end_tokens = np.array(end_tokens, dtype=np.int64)

    def look(self, tokens: np.ndarray, *, behind: int) -> bool:
        """Return whether a row ended among ``tokens`` (steps, rows), whose last is just before ``behind``."""
        ends = (tokens[..., None] == self.end_tokens).any(-1)
        places = (ends.any(0) & self.live.ravel()).nonzero()[0]
        if not len(places):
            return False
        self.ended[self.ids.ravel()[places]] = behind - len(tokens) + ends[:, places].argmax(0)
        self.live.flat[places] = False
        return True

    def smaller(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return groups and rows to keep once enough have finished, else None."""
        counts = self.live.sum(1)
        groups, size = counts.nonzero()[0], int(counts.max())
        if len(groups) * size > COMPACT_BELOW * self.ids.size:
            return None
        # Living rows first; a group with fewer of them keeps finished ones as filling.
        order = np.argsort(~self.live[groups], axis=1, kind="stable")[:, :size]
        rows = groups[:, None] * self.ids.shape[1] + order
        return groups, rows

    def keep(self, rows: np.ndarray) -> None:
        """Go on with those of the present rows that stand in ``rows`` (B', G')."""
        self.ids, self.live = self.ids.ravel()[rows], self.live.ravel()[rows]


def steps_between_looks(device: torch.device) -> int:
    """Return after how many steps finished rows are looked for: a CPU need not be waited for."""
    return 1 if device.type == "cpu" else LOOK_EVERY


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
    device, embed, head = model.device, model.get_input_embeddings(), model.lm_head
    count, group_size, limit = uniforms.shape
    cache = GroupCache(encoded, group_size=group_size, max_new_tokens=limit)
    rows = _Rows(count, group_size, limit=limit, end_tokens=end_tokens)
    positions = encoded.next_positions.repeat_interleave(group_size)[None, :, None].repeat(3, 1, 1)
    logits = head(encoded.hidden).repeat_interleave(group_size, dim=0)
    # One row a step: a column would be gathered anew at each of them.
    numbers = torch.from_numpy(np.ascontiguousarray(np.moveaxis(uniforms, 2, 0))).to(device).flatten(1)
    each = torch.tensor(temperatures, dtype=torch.float64, device=device).repeat(count)
    are_equal = len(set(temperatures)) == 1
    tokens = torch.zeros(count * group_size, limit, dtype=torch.long, device=device)
    logprobs = torch.zeros(count * group_size, limit, dtype=torch.float64, device=device)
    drawn, drawn_logprobs = list[Tensor](), list[Tensor]()
    interval, looked = steps_between_looks(device), 0

    def write(behind: int) -> None:
        """Put what has been drawn since the last time into its rows, up to before step ``behind``."""
        steps = slice(behind - len(drawn), behind)
        ids = torch.from_numpy(rows.ids.ravel()).to(device)
        tokens[ids, steps] = torch.stack(drawn, dim=1)
        logprobs[ids, steps] = torch.stack(drawn_logprobs, dim=1).double()
        drawn.clear()
        drawn_logprobs.clear()

    for step in range(limit):
        newest, newest_logprobs = (
            draw(logits, numbers[step], temperature=temperatures[0])
            if are_equal
            else draw_each(logits, numbers[step], temperatures=each)
        )
        # Of rows that have ended, which fill up a rectangle, everything behind the end is cut off later.
        drawn.append(newest)
        drawn_logprobs.append(newest_logprobs)
        behind = step + 1
        if behind == limit or behind % interval == 0:
            has_ended = rows.look(torch.stack(drawn[looked - behind :]).cpu().numpy(), behind=behind)
            looked = behind
            if behind == limit or not rows.live.any():
                break
            kept = rows.smaller() if has_ended else None
            if kept is not None:
                write(behind)
                rows.keep(kept[1])
                kept_groups, kept_rows = (torch.from_numpy(own).to(device) for own in kept)
                cache.regroup(kept_groups, kept_rows)
                places = kept_rows.flatten()
                positions, newest = positions[:, places], newest[places]
                numbers, each = numbers[:, places], each[places]
        hidden = run_text_model(model, embed(newest)[:, None], positions + step, decoding=cache)
        cache.length += 1
        logits = head(hidden[:, 0])
    write(behind)
    return tokens, logprobs, torch.from_numpy(rows.ended)


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
