"""The expected score: an answer's number, marginalised over all that could stand in its place.

A written answer is one draw (or the mode) of the policy's distribution over scores, so it takes few values.
Here the reasoning and all else before the number are kept as they were sampled, and every possible score s
is weighed by the probability that the policy writes it there and goes on as it did:

    p(s) ~ prod_k p(t_k | image, prompt, what stands before, t_1 .. t_(k-1)),    score = sum_s p(s) s

with t_1 .. t_n the tokens of s and the first one behind it, without which ``3`` could not be told from
``3.5``. That is the probability-weighted mean of Q-Align (arXiv 2312.17090), which takes it over five words
of one token each, over numbers of several tokens. The temperature is 1, whatever the reasoning was sampled
at.

The possible scores share beginnings, so they are laid out as a tree of tokens behind the sampled ones: a
node attends to the prompt, to what was sampled, and to the nodes that lead to it. One forward pass gives all
of them, with the keys and values of the prompts that decoding has made already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from qhk.policy.load import Policy
from qhk.policy.packed import pack_groups, packed_hidden, run_text_model
from qhk.policy.spans import tokens_before
from qhk.rollout.decode import EncodedPrompts, Group, RepeatedPrompts, wide
from qhk.types import Answer, Completion, ScoreDistribution

LOGITS_AT_ONCE = 1 << 26
"""Entries of the logits that exist at one time."""

CACHED = 64
"""Texts around a number, and trees, that are remembered: a small model says few different things."""

Spans = Callable[[str], Sequence[tuple[int, int]]]
"""Returns where in a text the numbers of its answer stand; empty where there is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenTree:
    """The possible continuations, laid out as a tree of E edges and N inner nodes; node 0 is the root.

    Edge e leads from node ``parents[e]`` (E,) by the token ``tokens[e]`` (E,). ``inner`` (N - 1,) are the
    edges that lead to the nodes 1, 2, ..., ``depths`` (N - 1,) the number of tokens between these and the
    root, and ``sees`` (N - 1, N - 1) which of them a node attends to. ``paths`` (C, longest) are the edges
    of each continuation, padded with E.
    """

    tokens: Tensor
    parents: Tensor
    inner: Tensor
    depths: Tensor
    sees: Tensor
    paths: Tensor


def build_tree(continuations: Sequence[Sequence[int]]) -> TokenTree:
    """Return the tree of the continuations (token ids), none of which is the beginning of another."""
    edges: dict[tuple[int, ...], int] = {}
    for tokens in continuations:
        for length in range(1, len(tokens) + 1):
            edges.setdefault(tuple(tokens[:length]), len(edges))
    inner = [path for path in edges if path not in {tuple(tokens) for tokens in continuations}]
    assert len(set(map(tuple, continuations))) == len(continuations), "two scores with the same tokens"
    assert all(tuple(tokens[:n]) in inner for tokens in continuations for n in range(1, len(tokens)))
    nodes = {(): 0} | {path: number for number, path in enumerate(inner, start=1)}
    sees = torch.zeros(len(inner), len(inner), dtype=torch.bool)
    for row, path in enumerate(inner):
        for length in range(1, len(path) + 1):
            sees[row, nodes[path[:length]] - 1] = True
    longest = max(map(len, continuations))
    return TokenTree(
        tokens=torch.tensor([path[-1] for path in edges]),
        parents=torch.tensor([nodes[path[:-1]] for path in edges]),
        inner=torch.tensor([edges[path] for path in inner], dtype=torch.long),
        depths=torch.tensor([len(path) - 1 for path in inner], dtype=torch.long),
        sees=sees,
        paths=torch.tensor(
            [
                [edges[tuple(tokens[: n + 1])] if n < len(tokens) else len(edges) for n in range(longest)]
                for tokens in continuations
            ]
        ),
    )


class _Branches:
    """Rows that continue the encoded prompts, each with a mask of its own: how they attend.

    ``owner`` (R,) is the prompt of each row, ``own`` (R, C, C) which of its tokens each of them attends to.
    """

    def __init__(self, encoded: EncodedPrompts, owner: Tensor, own: Tensor) -> None:
        width = encoded.layers[0][1].shape[2]
        prompt = torch.arange(width, device=owner.device) < encoded.lengths[owner][:, None]
        self.sees = torch.cat([prompt[:, None].expand(-1, own.shape[1], -1), own], dim=2)[:, None]
        self.layers, self.owner = encoded.layers, owner

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> Tensor:
        prompt_key, prompt_value = self.layers[layer]
        output = scaled_dot_product_attention(
            wide(query),
            torch.cat([prompt_key[self.owner].transpose(2, 3), wide(key)], dim=2),
            torch.cat([prompt_value[self.owner], wide(value)], dim=2),
            attn_mask=self.sees,
            scale=scaling,
            enable_gqa=True,
        )
        return output.to(query.dtype)


def score_trees(
    model: Any,
    encoded: EncodedPrompts | RepeatedPrompts,
    branches: Sequence[tuple[int, Tensor, TokenTree]],
    *,
    rows_at_once: int,
) -> list[Tensor]:
    """Return the log-probability, float64, of each continuation (C,) of each branch.

    A branch is the number of its prompt, the ids (T,) between prompt and tree, and the tree.
    """
    if isinstance(encoded, RepeatedPrompts):
        return [_repeat_tree(model, encoded, *branch, rows_at_once=rows_at_once) for branch in branches]
    found: list[Tensor] = []
    for start in range(0, len(branches), rows_at_once):
        found += _score_rows(model, encoded, branches[start : start + rows_at_once])
    return found


def _repeat_tree(
    model: Any, encoded: RepeatedPrompts, prompt: int, ids: Tensor, tree: TokenTree, *, rows_at_once: int
) -> Tensor:
    """(C,) log-probabilities, float64, of the continuations, each in a row of its own."""
    rows = [torch.cat([ids, tree.tokens[path[path < len(tree.tokens)]]]) for path in tree.paths]
    found = []
    for start in range(0, len(rows), rows_at_once):
        own = rows[start : start + rows_at_once]
        packed = pack_groups([encoded.prompts[prompt]], [own], device=model.device)
        states = packed_hidden(model, packed, encoded.features[prompt])
        logprobs = wide(model.lm_head(states)).log_softmax(-1).gather(1, packed.targets[:, None])[:, 0]
        found.append(packed.pad(logprobs.double())[:, len(ids) :].sum(1).cpu())
    return torch.cat(found)


def _score_rows(
    model: Any, encoded: EncodedPrompts, branches: Sequence[tuple[int, Tensor, TokenTree]]
) -> list[Tensor]:
    device = model.device
    width = max(len(ids) + len(tree.inner) for _, ids, tree in branches)
    tokens = torch.zeros(len(branches), width, dtype=torch.long)
    offsets = torch.zeros(len(branches), width, dtype=torch.long)
    # What pads a row sees itself, since a softmax over nothing has no value.
    own = torch.eye(width, dtype=torch.bool).repeat(len(branches), 1, 1)
    for row, (_, ids, tree) in enumerate(branches):
        before, behind = len(ids), len(ids) + len(tree.inner)
        tokens[row, :before], tokens[row, before:behind] = ids, tree.tokens[tree.inner]
        offsets[row, :before] = torch.arange(before)
        offsets[row, before:behind] = before + tree.depths
        own[row, :before, :before] = torch.ones(before, before, dtype=torch.bool).tril()
        own[row, before:behind, :before] = True
        own[row, before:behind, before:behind] = tree.sees
    owner = torch.tensor([prompt for prompt, _, _ in branches], device=device)
    states = encoded.hidden[owner][:, None]
    if width:
        hidden = run_text_model(
            model,
            model.get_input_embeddings()(tokens.to(device)),
            (encoded.next_positions[owner][:, None] + offsets.to(device)).expand(3, -1, -1),
            decoding=_Branches(encoded, owner, own.to(device)),
        )
        states = torch.cat([states, hidden], dim=1)
    # Column 0 is the prompt's last state, column c + 1 that of token c: the root's is at the number of ids.
    rows = torch.cat([torch.full((len(tree.tokens),), row) for row, (_, _, tree) in enumerate(branches)])
    columns = torch.cat([len(ids) + tree.parents for _, ids, tree in branches])
    wanted = torch.cat([tree.tokens for _, _, tree in branches])
    logprobs = _edge_logprobs(model, states, rows.to(device), columns.to(device), wanted.to(device)).cpu()
    pieces = torch.split(logprobs, [len(tree.tokens) for _, _, tree in branches])
    nothing = torch.zeros(1, dtype=torch.float64)
    return [
        torch.cat([piece, nothing])[tree.paths].sum(1)
        for piece, (_, _, tree) in zip(pieces, branches, strict=True)
    ]


def _edge_logprobs(model: Any, states: Tensor, rows: Tensor, columns: Tensor, wanted: Tensor) -> Tensor:
    """(E,) log-probabilities, float64, of ``wanted`` (E,) behind the states at ``rows`` and ``columns``."""
    places, place_of = torch.unique(rows * states.shape[1] + columns, return_inverse=True)
    vocabulary = model.lm_head.out_features
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    found = torch.zeros(len(wanted), dtype=torch.float64, device=states.device)
    flat = states.flatten(0, 1)
    for start in range(0, len(places), step):
        logits = wide(model.lm_head(flat[places[start : start + step]]))
        here = ((place_of >= start) & (place_of < start + step)).nonzero()[:, 0]
        at = place_of[here] - start
        found[here] = (logits[at, wanted[here]] - logits.logsumexp(1)[at]).double()
    return found


def distribution_of(logprobs: Tensor, scores: Tensor) -> ScoreDistribution:
    """Return the distribution of scores (C,), ways to write them, from their log-probabilities (C,)."""
    values, which = torch.unique(scores, return_inverse=True)
    p = torch.zeros(len(values), dtype=torch.float64).index_add(0, which, logprobs.softmax(0))
    mean = float((p * values).sum())
    return ScoreDistribution(
        mean=mean,
        std=math.sqrt(float((p * (values - mean) ** 2).sum())),
        entropy=float(torch.special.entr(p).sum()),
        mass=min(1.0, math.exp(float(logprobs.logsumexp(0)))),
    )


class ExpectedScores:
    """Reads expected scores with one policy: ``grid`` are the possible scores of a number, by their text."""

    def __init__(self, policy: Policy, *, grid: Mapping[str, float], spans: Spans, rows_at_once: int) -> None:
        self.policy, self.spans, self.rows_at_once = policy, spans, rows_at_once
        self.texts, self.scores = tuple(grid), torch.tensor(list(grid.values()), dtype=torch.float64)
        self._tokenised = lru_cache(maxsize=CACHED)(self._tokenise)
        self._tree = lru_cache(maxsize=CACHED)(build_tree)

    def read(
        self,
        encoded: EncodedPrompts | RepeatedPrompts,
        groups: Sequence[Group],
        completions: Sequence[Sequence[Completion]],
    ) -> list[list[Completion]]:
        """Return the completions of each encoded prompt with expected scores in place of written ones.

        Of several numbers, each is marginalised with those before it as they were written, and the answer is
        the mean of their means; spread, entropy and mass are those of independent numbers. An answer that
        cannot be read stays unread, and one whose numbers do not stand in the text becomes so.
        """
        places = [
            (prompt, row, span)
            for prompt, group in enumerate(completions)
            for row, completion in enumerate(group)
            for span in self.spans(completion.text)
        ]
        branches = [
            (prompt, *self._branch(groups[prompt].completion_ids[row], completions[prompt][row].text, span))
            for prompt, row, span in places
        ]
        found: dict[tuple[int, int], list[ScoreDistribution]] = {}
        scored = score_trees(self.policy.model, encoded, branches, rows_at_once=self.rows_at_once)
        for (prompt, row, _), logprobs in zip(places, scored, strict=True):
            found.setdefault((prompt, row), []).append(distribution_of(logprobs, self.scores))
        return [
            [_expected(completion, found.get((prompt, row), [])) for row, completion in enumerate(group)]
            for prompt, group in enumerate(completions)
        ]

    def _branch(self, ids: Tensor, text: str, span: tuple[int, int]) -> tuple[Tensor, TokenTree]:
        """The sampled ids before the number (or a token that reaches into it), and the scores' tree."""
        rows = self._tokenised(text[: span[0]], text[span[1] :])
        shared = set[int].intersection(*(set(begins) for _, begins in rows))
        for place in sorted((place for place in shared if place <= span[0]), reverse=True):
            count = tokens_before(self.policy.tokenizer, ids, place)
            if count is not None:
                return ids[:count], self._tree(tuple(tokens[begins[place] :] for tokens, begins in rows))
        raise AssertionError("tokens of any text begin where the text does")

    def _tokenise(self, before: str, behind: str) -> list[tuple[tuple[int, ...], dict[int, int]]]:
        """The tokens of each score between ``before`` and ``behind``, and which begins at which character.

        Whole texts are tokenised, whose tokens depend on what stands around them. They end with the first one
        that reaches behind the number; where the text ends with it, with the one that ends the turn.
        """
        texts = [before + number + behind for number in self.texts]
        coded = self.policy.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        rows = []
        for number, ids, offsets in zip(self.texts, coded["input_ids"], coded["offset_mapping"], strict=True):
            reached = len(before) + len(number)
            end = next((place + 1 for place, (_, stop) in enumerate(offsets) if stop > reached), None)
            tokens = ids[:end] if end is not None else [*ids, self.policy.end_tokens[0]]
            begins = {start: place for place, (start, _) in reversed(list(enumerate(offsets)))}
            rows.append((tuple(tokens), begins))
        return rows


def _expected(completion: Completion, found: Sequence[ScoreDistribution]) -> Completion:
    if not found:
        reason = completion.answer.reason or "its number does not stand in the text"
        return replace(completion, answer=Answer(score=None, reason=reason))
    means = [each.mean for each in found]
    whole = ScoreDistribution(
        mean=math.fsum(means) / len(found),
        std=math.sqrt(math.fsum(each.std**2 for each in found)) / len(found),
        entropy=math.fsum(each.entropy for each in found),
        mass=math.prod(each.mass for each in found),
    )
    aspects = tuple(means) if len(means) > 1 else ()
    return replace(completion, answer=Answer(score=whole.mean, aspects=aspects), distribution=whole)
