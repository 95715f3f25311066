"""The packed forward: groups of completions scored in one row, each prompt encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qhk.errors import UserError
from qhk.policy.attention import GROUP_ATTENTION, Packing, PromptCache, build_packing
from qhk.policy.families import family_of
from qhk.policy.prompt import EncodedPrompt
from qhk.policy.repeated import run_rows


@dataclass(frozen=True, kw_only=True)
class PackedGroups:
    """Prompts with their completions, laid out in one row of L tokens, on the model's device.

    It depends on ids and lengths alone, neither on pixels nor on weights: made once, it serves the policy,
    the reference and the degraded image. ``prompt_ids`` are the tokens of all prompts, ``image_places``
    where among them image features go, ``prompt_lengths`` the tokens of each; ``completion_ids`` holds one
    tensor per group, its completions one after another; ``position_ids`` (3, 1, L); ``is_image`` (1, L) where
    in the row image features go; ``packing`` says who attends to whom.

    ``targets`` (N,) are the tokens of all completions in the order of the row; ``row`` (N,) and ``column``
    (N,) are their places in the padded form (R, T): R completions of at most T tokens, group by group.
    """

    prompt_ids: Tensor
    image_places: Tensor
    prompt_lengths: tuple[int, ...]
    completion_ids: tuple[Tensor, ...]
    position_ids: Tensor
    is_image: Tensor
    packing: Packing
    targets: Tensor
    row: Tensor
    column: Tensor
    shape: tuple[int, int]

    def pad(self, values: Tensor) -> Tensor:
        """Return (R, T) with ``values`` (N,) at their places and zero elsewhere."""
        padded = torch.zeros(self.shape, dtype=values.dtype, device=values.device)
        return padded.index_put((self.row, self.column), values)

    def mask(self) -> Tensor:
        """Return (R, T) bool, true where a completion has a token."""
        return self.pad(torch.ones_like(self.targets, dtype=torch.bool))


def pack_groups(
    prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Tensor]], *, device: torch.device
) -> PackedGroups:
    """Return the layout of the prompts, each followed by its completions (1-d ids); it may have none."""
    rows = [completion for group in completions for completion in group]
    lengths = [len(completion) for completion in rows]
    targets = torch.cat([torch.empty(0, dtype=torch.long), *(row.cpu() for row in rows)]).to(device)
    is_image = torch.cat([prompt.is_image for prompt in prompts])
    return PackedGroups(
        prompt_ids=torch.cat([prompt.input_ids for prompt in prompts]).to(device),
        image_places=is_image.nonzero()[:, 0].to(device),
        prompt_lengths=tuple(prompt.num_tokens for prompt in prompts),
        completion_ids=torch.split(targets, [sum(map(len, group)) for group in completions]),
        position_ids=_row_positions(prompts, completions)[:, None].to(device),
        is_image=_row_images(prompts, completions)[None].to(device),
        packing=build_packing(
            [prompt.num_tokens for prompt in prompts],
            [[len(completion) for completion in group] for group in completions],
            device=device,
        ),
        targets=targets,
        row=torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths).long()).to(device),
        column=torch.cat([torch.arange(length) for length in (0, *lengths)]).to(device),
        shape=(len(rows), max(lengths, default=0)),
    )


def _row_positions(prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Tensor]]) -> Tensor:
    """(3, L) positions of the packed row: every completion starts where its prompt ends."""
    columns = []
    for prompt, group in zip(prompts, completions, strict=True):
        columns.append(prompt.position_ids)
        columns.extend((torch.arange(len(c)) + prompt.next_position).expand(3, -1) for c in group)
    return torch.cat(columns, dim=1)


def _row_images(prompts: Sequence[EncodedPrompt], completions: Sequence[Sequence[Tensor]]) -> Tensor:
    """(L,) where in the packed row image features go: in prompts alone, whatever tokens were sampled."""
    columns = []
    for prompt, group in zip(prompts, completions, strict=True):
        columns += [prompt.is_image, torch.zeros(sum(map(len, group)), dtype=torch.bool)]
    return torch.cat(columns)


def encode_images(model: Any, prompts: Sequence[EncodedPrompt]) -> Tensor:
    """Return (image tokens of all prompts, width), the features of their pictures, in prompt order."""
    return family_of(model).encode_images(model, prompts)


def run_text_model(model: Any, embeddings: Tensor, positions: Tensor, **attention: object) -> Tensor:
    """Return (batch, length, hidden), the last hidden states; ``attention`` goes to the group attention.

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
        attention_mask=family_of(model).text_mask,
        use_cache=False,
        **attention,
    ).last_hidden_state
    return hidden


def _embed_prompts(
    model: Any, packed: PackedGroups, features: Tensor
) -> tuple[Sequence[Tensor], dict[str, Any]]:
    """The embeddings (P, hidden) of each prompt, and what else the text model takes of the pictures.

    Image features fill places of the prompts only: a completion may hold a sampled image token, which stays
    the plain embedding of that token.
    """
    embeddings = model.get_input_embeddings()(packed.prompt_ids)
    features, further = family_of(model).enter(
        features, hidden_size=embeddings.shape[1], is_image=packed.is_image
    )
    embeddings = embeddings.index_copy(0, packed.image_places, features.to(embeddings.dtype))
    return torch.split(embeddings, list(packed.prompt_lengths)), further


def _repeat_rows(model: Any, packed: PackedGroups, features: Tensor) -> Iterator[Tensor]:
    """(max(G, 1), P + longest completion, hidden) last hidden states of each group, one row a completion."""
    embed, has_positions = model.get_input_embeddings(), family_of(model).has_positions
    prompts, _ = _embed_prompts(model, packed, features)
    lengths, column = packed.packing.completion_lengths, 0
    for group, (prompt, ids) in enumerate(zip(prompts, packed.completion_ids, strict=True)):
        own = [n for n, owner in zip(lengths, packed.packing.owner.tolist(), strict=True) if owner == group]
        before, behind = len(prompt), column + len(prompt) + len(ids)
        columns = torch.split(torch.arange(column + before, behind), own) if own else [torch.arange(0)]
        picked = pad_sequence(
            [torch.cat([torch.arange(column, column + before), one]) for one in columns], batch_first=True
        )
        # What pads a row is any column: nothing attends to it.
        picked = picked.to(ids.device)
        pieces = torch.cat([prompt, embed(ids)]) if len(ids) else prompt
        places = {"position_ids": packed.position_ids[:, 0, picked]} if has_positions else {}
        is_image = packed.is_image[0, picked] & (torch.arange(picked.shape[1], device=ids.device) < before)
        yield run_rows(model, pieces[(picked - column).clamp(min=0)], is_image, **places)
        column = behind


def _run_row(
    model: Any, packed: PackedGroups, features: Tensor, *, prompt_cache: PromptCache | None = None
) -> Tensor:
    """(L, hidden) last hidden states of the row."""
    embed = model.get_input_embeddings()
    prompts, further = _embed_prompts(model, packed, features)
    pieces: list[Tensor] = []
    for prompt, completion_ids in zip(prompts, packed.completion_ids, strict=True):
        pieces += [prompt, embed(completion_ids)] if len(completion_ids) else [prompt]
    keep = {} if prompt_cache is None else {"prompt_cache": prompt_cache}
    hidden = run_text_model(
        model, torch.cat(pieces)[None], packed.position_ids, packing=packed.packing, **keep, **further
    )
    return hidden[0]


def packed_hidden(model: Any, packed: PackedGroups, features: Tensor) -> Tensor:
    """Return (N, hidden), the states that predict the N completion tokens, in the order of ``targets``.

    ``features`` are those of the prompts' images (``encode_images``), in prompt order. Where the family
    has no packed forward, each completion takes a row of its own.
    """
    if family_of(model).slow_because:
        lengths = torch.split(
            torch.tensor(packed.packing.completion_lengths),
            packed.packing.owner.bincount(minlength=len(packed.prompt_lengths)).tolist(),
        )
        groups = zip(packed.prompt_lengths, lengths, _repeat_rows(model, packed, features), strict=True)
        return torch.cat(
            [
                row[before - 1 : before - 1 + length]
                for before, own, rows in groups
                for length, row in zip(own.tolist(), rows, strict=False)
            ]
        )
    return _run_row(model, packed, features)[packed.packing.predictors]


def repeated_prompt_states(model: Any, prompts: Sequence[EncodedPrompt], features: Tensor) -> Tensor:
    """Return (B, hidden), the states behind each prompt's last token, of a family without packed rows."""
    packed = pack_groups(prompts, [()] * len(prompts), device=model.device)
    return torch.cat([rows[:, -1] for rows in _repeat_rows(model, packed, features)])


def encode_prompts(
    model: Any, prompts: Sequence[EncodedPrompt], features: Tensor, *, prompt_cache: PromptCache
) -> Tensor:
    """Return (B, hidden), the states behind each prompt's last token; keys and values go to the cache."""
    packed = pack_groups(prompts, [()] * len(prompts), device=model.device)
    hidden = _run_row(model, packed, features, prompt_cache=prompt_cache)
    return hidden[torch.tensor(packed.prompt_lengths).cumsum(0).to(hidden.device) - 1]
