"""PreResQ-R1's rewards for sub-scores: for answers of several numbers (tasks multi_aspect and video)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qhk.errors import UserError
from qhk.rewards.batch import ScoredGroup
from qhk.rewards.term import Positive
from qhk.types import Completion, Example

NEEDS = {"response_penalty": ("aspects",), "triplet_balance": ("aspects",)}
"""What an answer must have, by reward."""


def response_penalty(completion: Completion, example: Example, *, deviation: Positive) -> float:
    """Return ``-max(0, deviation - s)`` in [-deviation, 0], s the standard deviation of the sub-scores.

    That is the population's, without correction. The term punishes sub-scores that are all alike; the same
    number added to all of them changes nothing. An answer that was not read costs ``deviation``, what equal
    sub-scores cost (the release fills in 3.0 for each), so that being unreadable is no way out.
    ``UserError`` for an answer of one score. Source: release, 0.5 with a strength of 0.5, which belongs to
    the term's weight; its figure has it in the first stage only.
    """
    answer = completion.answer
    if not answer.parsed:
        return -deviation
    if not answer.aspects:
        raise _no_aspects("response_penalty", example.id)
    mean = math.fsum(answer.aspects) / len(answer.aspects)
    spread = math.sqrt(math.fsum((aspect - mean) ** 2 for aspect in answer.aspects) / len(answer.aspects))
    return min(0.0, spread - deviation)


def triplet_balance(groups: Sequence[ScoredGroup], *, margin: Positive, skip_last: bool) -> list[list[float]]:
    """Return for every answer how often its sub-scores lie near a triplet's median, in [0, 1].

    Over all triplets of its group's answers that hold this one, and over the sub-scores: the share of cases
    in which its sub-score is the median of the three or less than ``margin`` from it. It favours what most
    answers say, right or wrong. An answer that was not read earns 0 and is in no triplet; where fewer than
    three were read, all earn 0 (the release gives up on the whole batch). ``skip_last`` leaves the last
    sub-score out, as the release does for images. ``UserError`` for answers of one score.

    Counted, not looped over: an answer fails in just those triplets whose two others both lie ``margin`` or
    more above it, or both below. Source: release, margin 0.05, with a strength of 0.5 twice over, which
    belongs to the term's weight.
    """
    return [_balance(group, margin, skip_last) for group in groups]


def _balance(group: ScoredGroup, margin: float, skip_last: bool) -> list[float]:
    """Return what each answer of one group earns."""
    if group.parsed and not any(group.aspects):
        raise _no_aspects("triplet_balance", group.id)
    read = [aspects[:-1] if skip_last else aspects for aspects in group.aspects if aspects]
    columns = list(zip(*read, strict=True))
    triplets = math.comb(len(read) - 1, 2) if read else 0
    if not triplets or not columns:
        return [0.0] * len(group.scores)
    shares = iter([_share(place, columns, margin, triplets) for place in range(len(read))])
    return [next(shares) if aspects else 0.0 for aspects in group.aspects]


def _share(place: int, columns: Sequence[Sequence[float]], margin: float, triplets: int) -> float:
    """Return the share of cases in which the answer at ``place`` is near the median."""
    failed = 0
    for column in columns:
        own = column[place]
        failed += math.comb(sum(other - own >= margin for other in column), 2)
        failed += math.comb(sum(own - other >= margin for other in column), 2)
    return 1 - failed / (triplets * len(columns))


def _no_aspects(name: str, example: str) -> UserError:
    return UserError(
        f"reward: {name} compares sub-scores, but the answers to {example} are single scores; "
        "remove the term, or choose task=multi_aspect or task=video"
    )
