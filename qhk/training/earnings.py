"""What completions earn: the rewards of all groups of a step, by task and term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qhk.rewards.batch import ScoredGroup, scored_group
from qhk.rewards.term import CompletionTerm, RewardTerm, batch_values, completion_value
from qhk.rollout.group import Group
from qhk.training.distributed import Processes


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What every process knows of a group: its task, and its scores where the task asks for numbers."""

    task: str
    group: ScoredGroup | None


@dataclass(frozen=True, kw_only=True)
class Earnings:
    """What B groups of G completions earned. All of the *global* batch, in global prompt order.

    ``rewards`` (B, G) are the weighted sums of each group's task's terms; ``breakdown`` (B', G) per reward
    term, unweighted, over the groups of its task, named ``task.term`` where a run holds several tasks.
    """

    seen: list[Seen]
    rewards: Tensor
    breakdown: dict[str, Tensor]

    def rows(self, task: str) -> list[int]:
        """The groups of a task."""
        return [place for place, one in enumerate(self.seen) if one.task == task]


def earn_rewards(
    groups: Sequence[Group], *, terms: Mapping[str, Sequence[RewardTerm]], processes: Processes
) -> Earnings:
    """The rewards of the whole step's groups; ``groups`` are this process's own, ``terms`` go by task.

    Opinions, scores and what each completion earns by itself are gathered first: rewards may compare groups.
    They compare those of one task: rewards of different tasks have different ranges.
    """
    seen = processes.gather_items([_seen(group) for group in groups])
    rewards = torch.zeros(len(seen), len(groups[0].completions), dtype=torch.float64)
    earnings = Earnings(seen=seen, rewards=rewards, breakdown={})
    for task, own_terms in terms.items():
        rows = earnings.rows(task)
        for term in own_terms:
            values = _values(term, task, groups, seen, processes)[rows]
            rewards[rows] += term.weight * values
            earnings.breakdown[term.name if len(terms) == 1 else f"{task}.{term.name}"] = values
    return earnings


def _seen(group: Group) -> Seen:
    example, answers = group.example, [completion.answer for completion in group.completions]
    if example.mos is None:
        return Seen(task=group.task, group=None)
    return Seen(task=group.task, group=scored_group(example, answers))


def _values(
    term: RewardTerm, task: str, groups: Sequence[Group], seen: Sequence[Seen], processes: Processes
) -> Tensor:
    """What one term gives (B, G) all groups of the step, 0 for those of other tasks.

    ``groups`` are this process's, ``seen`` all.
    """
    size = len(groups[0].completions)
    if not isinstance(term, CompletionTerm):
        places = [place for place, one in enumerate(seen) if one.task == task and one.group is not None]
        values = torch.zeros(len(seen), size, dtype=torch.float64)
        if places:
            compared = [one.group for one in seen if one.task == task and one.group is not None]
            values[places] = torch.tensor(batch_values(term, compared), dtype=torch.float64)
        return values
    own = [
        [completion_value(term, c, group.example) if group.task == task else 0.0 for c in group.completions]
        for group in groups
    ]
    return processes.gather_rows(torch.tensor(own, dtype=torch.float64))
