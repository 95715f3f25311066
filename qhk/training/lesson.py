"""What a process's groups are to teach: advantages, the tokens that learn, and what to divide by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qhk.objective.aggregate import Counts
from qhk.policy.spans import tokens_in_span
from qhk.rollout.group import Group
from qhk.tasks.task import Span
from qhk.training.credit import Credit
from qhk.training.distributed import Processes


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What b groups of this process are to teach.

    ``advantages`` (b, G); ``learns`` bool (b, G), whose tokens enter the loss; ``answers`` by group and
    completion, bool (tokens,), which of them stand in the answer, None where no term asks; ``counts`` those
    of the whole step.
    """

    groups: Sequence[Group]
    advantages: Tensor
    learns: Tensor
    answers: list[list[Tensor]] | None
    counts: Counts

    def answer_mask(self, part: slice) -> Tensor | None:
        """(R, T) of a micro-batch's groups, in the padded form of its tokens."""
        if self.answers is None:
            return None
        return pad_sequence([tokens for group in self.answers[part] for tokens in group], batch_first=True)


def make_lesson(
    groups: Sequence[Group],
    credit: Credit,
    *,
    tokenizer: Any,
    spans: Mapping[str, Span] | None,
    processes: Processes,
) -> Lesson:
    """The lesson of this process's ``groups``.

    ``spans`` says by task where in a text its rule looks for the answer; None where no term asks.
    """
    own = processes.own_part(len(credit.rewards))
    learns, counts, answers = credit.learns[own], credit.counts, None
    if spans is not None:
        numbers = range(learns.shape[1])
        answers = [
            [_answer_tokens(group, number, spans[group.task], tokenizer) for number in numbers]
            for group in groups
        ]
        inside = sum(int(answers[place][number].sum()) for place, number in learns.nonzero().tolist())
        counts = replace(counts, answer_tokens=processes.total(inside))
    return Lesson(
        groups=groups, advantages=credit.advantages[own], learns=learns, answers=answers, counts=counts
    )


def _answer_tokens(group: Group, number: int, find: Span, tokenizer: Any) -> Tensor:
    """Bool (tokens,): which tokens of a completion stand in its answer, none where there is none."""
    ids, span = group.completion_ids[number], find(group.completions[number].text)
    return torch.zeros(len(ids), dtype=torch.bool) if span is None else tokens_in_span(tokenizer, ids, span)
