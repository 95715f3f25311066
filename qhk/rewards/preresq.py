"""PreResQ-R1: rewards for scores that agree with the opinions of several images and within a group.

An answer's score is one number, or the mean of its sub-scores (as the release has it). All sort the scores
of an image: equal scores share the mean of what their places earn, so that the order of completions never
matters (in the release the order of sorting decides). Scores and opinions are compared as ``order`` does, in
every form: in the release, rounding tells about 15% of the means apart that are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Literal

from qhk.rewards.batch import ScoredGroup, comparable, order, rounded
from qhk.rewards.term import Positive

Wrong = Literal["release", "corrected"]
"""What a pair in the wrong order earns, and whether pairs of equal opinions count."""

Align = Literal["index", "rank"]
"""Which answers of different images meet: those sampled at the same place, or those of the same rank."""

Agreement = Callable[[float, float, float, float], float]
"""(score, opinion, other score, other opinion) -> how far scores are ordered as opinions, in [0, 1]."""

Judge = Callable[[Sequence[float | None]], list[float | None]]
"""One score of every image -> the triplet agreement of each; None where there is none."""

Ties = Literal["half", "one_way"]
"""What equal scores or equal opinions count in a triplet: half of an order, or as the release has them."""


def pairwise_score_and_ranking(
    groups: Sequence[ScoredGroup], *, wrong: Wrong, alone: float
) -> list[list[float]]:
    """Return for every answer the mean of g over the other images z of its data set, in [0, 1].

    Each image's scores are sorted; the answer of rank r, with score a and opinion y, meets the score b of the
    same rank of z, with opinion y_z: ``d = |y - y_z|``, ``S = d / (d + |a - y| + |b - y_z|)``, and
    ``g = sqrt(S)`` where a and b are in the order of the opinions.

    - ``release``: ``g = sqrt(1 - S)`` in another order, which *rises* with the error. Equal opinions have
      S = 0, so that equal scores earn 0 and different ones 1 (the release gives NaN where both equal the
      opinion; here 1).
    - ``corrected`` (ours): ``g = sqrt(S) / 2`` in another order: half of what the same errors would earn in
      the right one, and falling with them. Images of equal opinion do not meet.

    An image with fewer parsed scores meets the nearest relative rank. An answer that was not read earns 0,
    one that meets nobody ``alone`` (0 in the release). Source: release, within one device's images.
    """
    rewards: list[dict[float, float]] = [{} for _ in groups]
    for members in comparable(groups):
        ranked = {index: sorted(groups[index].parsed) for index in members}
        for index, own in ranked.items():
            others = [z for z in members if z != index and _meets(groups[index], groups[z], wrong)]
            values = []
            for rank, score in enumerate(own):
                met = [
                    _pair(score, groups[index].mos, _at_rank(ranked[z], rank, len(own)), groups[z].mos, wrong)
                    for z in others
                ]
                values.append(math.fsum(met) / len(met) if met else alone)
            rewards[index] = _shared(own, values)
    return _by_score(groups, rewards)


def triplet_ranking(
    groups: Sequence[ScoredGroup], *, align: Align, alone: float, ties: Ties = "half"
) -> list[list[float]]:
    """Return for every answer the share of rightly ordered pairs in its triplets, in [0, 1].

    A triplet is the answer's image and two others of its data set. Over all pairs {y, z} of these others, the
    mean of the three agreements of (own, y), (own, z) and (y, z): 1 where the scores are ordered as the
    opinions, 0 where the opposite. Where only scores or only opinions are equal,

    - ``half`` (ours) counts 1/2, so that the order of images never matters;
    - ``one_way`` (release) asks one question of a pair, whether the first is greater than the second, and
      counts 1 where scores and opinions answer alike, else 0. The first is the own image, of two others the
      one that comes first in the step.

    ``index`` compares the answers sampled at the same place, an arbitrary pairing (release); ``rank`` those
    of the same rank among their image's sorted scores (figure of the release's README; ours). An image whose
    answer at that place was not read is left out there; with ``rank``, one with fewer parsed scores gives the
    nearest relative rank. An answer that was not read earns 0, one in no triplet ``alone`` (NaN in the
    release).
    """
    rewards = [[0.0] * len(group.scores) for group in groups]
    agree = _agreement if ties == "half" else _one_way_agreement
    for members in comparable(groups):
        present = [groups[index] for index in members]
        mos = [group.mos for group in present]
        judge = partial(_triplets, mos=mos, agree=agree, alone=alone)
        columns = (_by_index if align == "index" else _by_rank)(present, judge)
        for index, values in zip(members, columns, strict=True):
            rewards[index] = values
    return rewards


def rank_to_ground_truth(groups: Sequence[ScoredGroup], *, near: Positive) -> list[list[float]]:
    """Return for every answer ``exp(-k / (n + 1))`` in (0, 1]: k places between its score and the opinion.

    The n parsed scores of the image and its opinion are sorted together; 1 where the score is closer to the
    opinion than ``near``. An answer that was not read earns 0. Source: release, ``near`` 0.02, which has the
    term for images only.
    """
    rewards = []
    for group in groups:
        scores = sorted(group.parsed)
        values = []
        for rank, score in enumerate(scores):
            below, above = scores[:rank], scores[rank + 1 :]
            if order(score, group.mos) < 0:
                places = 1 + sum(order(other, group.mos) < 0 for other in above)
            else:
                places = 1 + sum(order(other, group.mos) > 0 for other in below)
            is_near = abs(score - group.mos) < near
            values.append(1.0 if is_near else math.exp(-places / (len(scores) + 1)))
        rewards.append(_shared(scores, values))
    return _by_score(groups, rewards)


def _meets(own: ScoredGroup, other: ScoredGroup, wrong: Wrong) -> bool:
    return wrong == "release" or order(own.mos, other.mos) != 0


def _pair(own: float, own_mos: float, other: float, other_mos: float, wrong: Wrong) -> float:
    """Return g of one pair."""
    apart = abs(own_mos - other_mos)
    total = apart + abs(own - own_mos) + abs(other - other_mos)
    share = apart / total if total > 0 else 1.0
    if order(own, other) == order(own_mos, other_mos):
        return math.sqrt(share)
    return math.sqrt(1 - share) if wrong == "release" else math.sqrt(share) / 2


def _by_index(groups: Sequence[ScoredGroup], judge: Judge) -> list[list[float]]:
    """Return the triplet agreements of answers sampled at the same place."""
    size = max(len(group.scores) for group in groups)
    columns = [judge([_at_place(group, place) for group in groups]) for place in range(size)]
    return [
        [columns[place][index] or 0.0 for place in range(len(group.scores))]
        for index, group in enumerate(groups)
    ]


def _by_rank(groups: Sequence[ScoredGroup], judge: Judge) -> list[list[float]]:
    """Return triplet agreements of answers of the same rank, computed once per number of parsed scores."""
    ranked = [sorted(group.parsed) for group in groups]
    table = {
        count: [judge([_at_rank(scores, rank, count) for scores in ranked]) for rank in range(count)]
        for count in {len(scores) for scores in ranked}
    }
    shared = [
        _shared(scores, [column[index] or 0.0 for column in table[len(scores)]])
        for index, scores in enumerate(ranked)
    ]
    return _by_score(groups, shared)


def _triplets(
    scores: Sequence[float | None], *, mos: Sequence[float], agree: Agreement, alone: float
) -> list[float | None]:
    """Return the triplet agreement of every image, given one score of each; None where there is no score.

    Summed over all pairs of n others, each agreement with the own image occurs n - 1 times, and each among
    the others once: no loop over triplets.
    """
    present = [(score, y) for score, y in zip(scores, mos, strict=True) if score is not None]
    others = len(present) - 1
    if others < 2:
        return [None if score is None else alone for score in scores]
    table = [[agree(*first, *second) for second in present] for first in present]
    everything = math.fsum(value for place, row in enumerate(table) for value in row[place + 1 :])
    count = 3 * others * (others - 1) / 2
    values = []
    for place, row in enumerate(table):
        own = math.fsum(row) - row[place]
        among = everything - math.fsum(row[place + 1 :]) - math.fsum(above[place] for above in table[:place])
        values.append(((others - 1) * own + among) / count)
    found = iter(values)
    return [None if score is None else next(found) for score in scores]


def _agreement(score: float, mos: float, other_score: float, other_mos: float) -> float:
    return 1 - abs(order(score, other_score) - order(mos, other_mos)) / 2


def _one_way_agreement(score: float, mos: float, other_score: float, other_mos: float) -> float:
    return float((order(score, other_score) > 0) == (order(mos, other_mos) > 0))


def _at_place(group: ScoredGroup, place: int) -> float | None:
    return group.scores[place] if place < len(group.scores) else None


def _at_rank(ranked: Sequence[float], rank: int, count: int) -> float:
    """Return the score of the relative rank nearest to ``rank`` of ``count``; the middle one if alone."""
    last = len(ranked) - 1
    return ranked[last // 2 if count == 1 else (2 * rank * last + count - 1) // (2 * (count - 1))]


def _shared(ranked: Sequence[float], values: Sequence[float]) -> dict[float, float]:
    """Return score (``rounded``) -> value; equal scores get the mean of their values."""
    shared = {}
    for score, run in groupby(zip(ranked, values, strict=True), key=lambda pair: rounded(pair[0])):
        own = [value for _, value in run]
        shared[score] = math.fsum(own) / len(own)
    return shared


def _by_score(groups: Sequence[ScoredGroup], values: Sequence[dict[float, float]]) -> list[list[float]]:
    """Return one value per completion per group, 0 where no score was read."""
    return [
        [0.0 if score is None else value[rounded(score)] for score in group.scores]
        for group, value in zip(groups, values, strict=True)
    ]
