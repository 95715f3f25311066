"""The repeated forward: each completion in a row of its own, through the model's own forward pass.

What a model without packed rows is scored and sampled with. Rows of a group have the same prompt and are
padded behind: nothing attends to what comes later, so padding needs no mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from qhk.policy.prompt import EncodedPrompt

Choose = Callable[[Tensor], Tensor]
"""Takes the logits (rows, V) of the next token and returns the tokens (rows,)."""


def run_rows(model: Any, embeddings: Tensor, is_image: Tensor, **places: Tensor) -> Tensor:
    """Return (rows, L, hidden), the last hidden states of ``embeddings`` (rows, L, hidden).

    ``is_image`` (rows, L) marks image tokens, which some models let see each other; ``places`` are positions
    where they do not simply count.
    """
    takes = inspect.signature(model.model.forward).parameters
    types = {"token_type_ids": is_image.long()} if "token_type_ids" in takes else {}
    hidden: Tensor = model.model(
        inputs_embeds=embeddings, use_cache=False, return_dict=True, **types, **places
    ).last_hidden_state
    return hidden


def stock_inputs(model: Any, prompt: EncodedPrompt, *, rows: int) -> dict[str, Tensor]:
    """Return what the model's own forward pass takes of a prompt, ``rows`` times."""
    takes = inspect.signature(model.forward).parameters
    types = prompt.is_image.long()
    optional = {"token_type_ids": types, "mm_token_type_ids": types, "image_grid_thw": prompt.image_grid_thw}
    named: Mapping[str, Tensor] = {
        "input_ids": prompt.input_ids[None],
        "attention_mask": torch.ones_like(prompt.input_ids)[None],
        "pixel_values": prompt.pixel_values,
        **{name: value.view(-1, value.shape[-1]) for name, value in optional.items() if name in takes},
        **prompt.further,
    }
    return {name: torch.cat([value] * rows).to(model.device) for name, value in named.items()}


def generate_rows(
    model: Any,
    prompt: EncodedPrompt,
    choose: Choose,
    *,
    rows: int,
    max_new_tokens: int,
    end_tokens: Sequence[int],
) -> None:
    """Let the model's own ``generate`` continue a prompt ``rows`` times, each token chosen by ``choose``.

    Nothing is read from a generation config but what stands here. What follows a row's end is filling.
    """

    def only(_: Tensor, logits: Tensor) -> Tensor:
        tokens = choose(logits)
        return torch.full_like(logits, float("-inf")).scatter_(1, tokens[:, None], 0.0)

    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(end_tokens),
        pad_token_id=end_tokens[0],
    )
    # Left to itself, generate has processes that share a model wait for each other at every token. Here the
    # model is whole while it samples, and each process has prompts of its own, so they would wait for ever.
    model.generate(
        **stock_inputs(model, prompt, rows=rows),
        generation_config=config,
        logits_processor=[only],
        synced_gpus=False,
    )
