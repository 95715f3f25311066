"""Dynamic sampling: groups whose completions all earned alike give their places to fresh prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qhk.objective.advantage import equal_rewards
from qhk.rollout.group import Group
from qhk.training.earnings import Earnings
from qhk.training.inputs import StepPrompt

Fresh = Callable[[int, Sequence[int]], Sequence[StepPrompt]]
"""(round from 1, global indices) -> the prompts that take these places."""


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """This process's groups and everyone's earnings after ``num_rounds`` rounds.

    ``num_prompts`` were sampled in them beyond the step's own, over all processes.
    """

    groups: list[Group]
    earnings: Earnings
    num_rounds: int
    num_prompts: int


def replace_uninformative(
    groups: Sequence[Group],
    earnings: Earnings,
    *,
    max_rounds: int,
    own: slice,
    fresh: Fresh,
    sample: Callable[[Sequence[StepPrompt], int], Sequence[Group]],
    earn: Callable[[Sequence[Group]], Earnings],
) -> Resampled:
    """The step's groups once none holds G equal rewards, or after ``max_rounds`` rounds; 0 changes nothing.

    In each round every such group is replaced by the group of a fresh prompt, and all rewards are taken anew,
    because some compare groups. What is judged is the total reward, without a KL. ``own`` are the global
    indices of this process's groups; ``sample`` (prompts, round) and ``earn`` give groups and the earnings of
    all processes. Which prompt takes a place depends on (seed, step, round, global index) alone, so any
    number of processes replaces the same groups by the same ones.

    Source: DAPO (arXiv 2503.14476, section 3.2), which samples whole batches and keeps what is informative
    until a batch is full; here a place is filled again and again instead, and what is still uninformative
    after the last round stays, with advantage 0.
    """
    kept, num_rounds, num_prompts = list(groups), 0, 0
    while num_rounds < max_rounds:
        dull = equal_rewards(earnings.rewards)
        if not bool(dull.any()):
            break
        num_rounds += 1
        num_prompts += int(dull.sum())
        places = [place for place in range(own.start, own.stop) if dull[place]]
        for place, group in zip(places, sample(fresh(num_rounds, places), num_rounds), strict=True):
            kept[place - own.start] = group
        earnings = earn(kept)
    return Resampled(groups=kept, earnings=earnings, num_rounds=num_rounds, num_prompts=num_prompts)
