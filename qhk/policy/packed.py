"""The packed forward: groups of completions scored in one row, each prompt encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qhk.errors import UserError
from qhk.policy.attention import GROUP_ATTENTION, PromptCache, build_packing
from qhk.policy.prompt import EncodedPrompt


@dataclass(frozen=True, kw_only=True)
class PackedTokens:
    """Which token of which completion each of the N scored positions is.

    ``targets`` (N,) are the completion tokens; ``row`` (N,) and ``column`` (N,) their place in the
    padded form (R, T): R completions of at most T tokens, group by group.
    """

    targets: Tensor
    row: Tensor
    column: Tensor
    shape: tuple[int, int]

    def pad(self, values: Tensor) -> Tensor:
        """(R, T) with ``values`` (N,) at their places and zero elsewhere."""
        padded = torch.zeros(self.shape, dtype=values.dtype, device=values.device)
        return padded.index_put((self.row, self.column), values)

    def mask(self) -> Tensor:
        """(R, T) bool, true where a completion has a token."""
        return self.pad(torch.ones_like(self.targets, dtype=torch.bool))


def pack_tokens(completions: Sequence[Sequence[Tensor]], *, device: torch.device) -> PackedTokens:
    """The scored tokens of all groups' completions, in packed order."""
    rows = [completion for group in completions for completion in group]
    lengths = torch.tensor([len(completion) for completion in rows])
    return PackedTokens(
        targets=torch.cat(rows).to(device),
        row=torch.repeat_interleave(torch.arange(len(rows)), lengths).to(device),
        column=torch.cat([torch.arange(int(length)) for length in lengths]).to(device),
        shape=(len(rows), int(lengths.max())),
    )


def encode_images(model: Any, prompts: Sequence[EncodedPrompt]) -> Tensor:
    """(image tokens of all prompts, hidden) features of the vision tower, in prompt order."""
    pixels = torch.cat([prompt.pixel_values for prompt in prompts]).to(model.device)
    grid = torch.cat([prompt.image_grid_thw for prompt in prompts]).to(model.device)
    features: Sequence[Tensor] = model.model.get_image_features(pixels, grid, return_dict=True).pooler_output
    return torch.cat(list(features))


def prompt_embeddings(model: Any, prompts: Sequence[EncodedPrompt], features: Tensor) -> Tensor:
    """(total prompt tokens, hidden) input embeddings with image features in their places.

    Only places of the prompt are filled: a completion may hold a sampled image token, which stays the
    plain embedding of that token.
    """
    ids = torch.cat([prompt.input_ids for prompt in prompts]).to(model.device)
    places = torch.cat([prompt.is_image for prompt in prompts]).to(model.device).nonzero()[:, 0]
    embeddings = model.get_input_embeddings()(ids)
    filled: Tensor = embeddings.index_copy(0, places, features.to(embeddings.dtype))
    return filled


def _row_positions(prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Tensor]]) -> Tensor:
    """(3, L) positions of the packed row: every completion starts where its prompt ends."""
    columns = []
    for prompt, group in zip(prompts, completions, strict=True):
        columns.append(prompt.position_ids)
        columns.extend((torch.arange(len(c)) + prompt.next_position).expand(3, -1) for c in group)
    return torch.cat(columns, dim=1)


def run_text_model(model: Any, embeddings: Tensor, positions: Tensor, **attention: object) -> Tensor:
    """(batch, length, hidden) last hidden states; ``attention`` goes to the group attention function.

    The mask is given as already prepared: group attention knows who sees whom. Raises ValueError where
    the model's text part has another attention function, which would ignore all that without a word.
    """
    implementation = model.config.text_config._attn_implementation
    if implementation != GROUP_ATTENTION:
        raise UserError(
            f"attention of the text model is {implementation!r}; packed rows need {GROUP_ATTENTION!r} "
            "(qhk.policy.load.prepare_model sets it)"
        )
    hidden: Tensor = model.model.language_model(
        inputs_embeds=embeddings,
        position_ids=positions,
        attention_mask={"full_attention": None, "sliding_attention": None},
        use_cache=False,
        **attention,
    ).last_hidden_state
    return hidden


def packed_hidden(
    model: Any,
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Sequence[Tensor]],
    *,
    features: Tensor | None,
) -> Tensor:
    """(N, hidden) states that predict the N completion tokens, in the order of :func:`pack_tokens`.

    ``features`` are the image features where they are already known (a frozen vision tower shared by
    several branches); None encodes the pictures here.
    """
    device = model.device
    if features is None:
        features = encode_images(model, prompts)
    packing = build_packing(
        [prompt.num_tokens for prompt in prompts],
        [[len(completion) for completion in group] for group in completions],
        device=device,
    )
    prompt_rows = torch.split(
        prompt_embeddings(model, prompts, features), [prompt.num_tokens for prompt in prompts]
    )
    pieces: list[Tensor] = []
    for prompt_row, group in zip(prompt_rows, completions, strict=True):
        pieces += [prompt_row, model.get_input_embeddings()(torch.cat(list(group)).to(device))]
    positions = _row_positions(prompts, completions).to(device)
    hidden = run_text_model(model, torch.cat(pieces)[None], positions[:, None], packing=packing)
    return hidden[0][packing.predictors]


def encode_prompts(
    model: Any, prompts: Sequence[EncodedPrompt], *, prompt_cache: PromptCache, features: Tensor | None
) -> Tensor:
    """(B, hidden) states behind each prompt's last token; keys and values go to ``prompt_cache``."""
    device = model.device
    if features is None:
        features = encode_images(model, prompts)
    packing = build_packing([prompt.num_tokens for prompt in prompts], [()] * len(prompts), device=device)
    positions = torch.cat([prompt.position_ids for prompt in prompts], dim=1).to(device)
    embeddings = prompt_embeddings(model, prompts, features)[None]
    hidden = run_text_model(model, embeddings, positions[:, None], packing=packing, prompt_cache=prompt_cache)
    ends = torch.tensor([prompt.num_tokens for prompt in prompts]).cumsum(0) - 1
    return hidden[0][ends.to(device)]
