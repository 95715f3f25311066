"""Which pairs a reviewer sees, and in which order; never more of them at once than a window."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from itertools import chain
from typing import Literal, get_args

from qhk.errors import UserError
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import VERDICTS, Answer, Pair

Order = Literal["manifest", "shuffled", "judge_least_sure"]
Show = Literal["todo", "skipped", "unsure", "decided", "disagreements", "all"]
SHOWS: tuple[Show, ...] = get_args(Show)
Scope = Literal["to_confirm", "all"]
"""Every pair, or those that wait for a person: judged the same, not judged, or without a readable answer."""


class Queue:
    """The pairs of a manifest in one fixed order; those that join later follow at the end.

    ``types`` restricts it to these degradation types; empty means all. Raises ``UserError`` where no
    pair is of such a type.
    """

    def __init__(self, manifest: PairManifest, *, order: Order, scope: Scope, types: Collection[str]) -> None:
        _check_types(manifest, types)
        self._manifest = manifest
        self._scope = scope
        self._types = frozenset(types)
        self._ids: list[str] = []
        self._places: dict[str, int] = {}
        self._num_seen = 0
        self.extend()
        if order != "manifest":
            self._ids.sort(key=_shuffled if order == "shuffled" else self._sureness)
        self._places = {group_id: place for place, group_id in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    def types(self) -> list[str]:
        """Return the degradation types in the queue, by name."""
        return sorted({self.pair(place).copy.type for place in range(len(self))})

    def extend(self) -> None:
        """Take in pairs that the manifest has got since."""
        if self._num_seen == len(self._manifest):
            return
        for group_id, pair in list(self._manifest.pairs.items())[self._num_seen :]:
            if self._belongs(pair):
                self._places[group_id] = len(self._ids)
                self._ids.append(group_id)
        self._num_seen = len(self._manifest)

    def pair(self, place: int) -> Pair:
        """Return the pair at a place, counted from 0."""
        return self._manifest.pairs[self._ids[place]]

    def place(self, group_id: str) -> int | None:
        """Return where a pair stands; None for one that is not in the queue."""
        return self._places.get(group_id)

    def window(self, keep: Callable[[Pair], bool], *, start: int, count: int) -> list[int]:
        """Return up to ``count`` places that ``keep`` accepts, from ``start`` on, then from the beginning."""
        found: list[int] = []
        for place in chain(range(start, len(self)), range(min(start, len(self)))):
            if len(found) == count:
                break
            if keep(self.pair(place)):
                found.append(place)
        return found

    def _belongs(self, pair: Pair) -> bool:
        if self._types and pair.copy.type not in self._types:
            return False
        judgement = pair.judgement
        return self._scope == "all" or judgement is None or judgement.verdict in (None, "same")

    def _sureness(self, group_id: str) -> float:
        return judge_sureness(self._manifest, self._manifest.pairs[group_id])


def _check_types(manifest: PairManifest, types: Collection[str]) -> None:
    known = {pair.copy.type for pair in manifest}
    for kind in types:
        if kind not in known:
            raise UserError(
                f"types: {manifest.path} has no pair of type {kind!r}; "
                f"choose from {', '.join(sorted(known)) or 'none'}"
            )


def judge_sureness(manifest: PairManifest, pair: Pair) -> float:
    """Return how sure the judge was of the newest copy, in [0, 1].

    0 where judges contradict each other or gave no readable answer, the confidence that came with the
    answer, 0.5 where nobody judged, 1 for an answer without a confidence.
    """
    words = [word for word in pair.judgements.values() if word.version == pair.copy.version]
    if not words:
        return 0.5
    verdicts = {word.verdict for word in words}
    if len(verdicts) > 1 or None in verdicts:
        return 0.0
    confidences = [manifest.record_at(word.place).get("confidence") for word in words]
    known = [float(value) for value in confidences if value is not None]
    return min(known, default=1.0)


def wanted(show: Show, *, kind: str, answer: Callable[[Pair], Answer | None]) -> Callable[[Pair], bool]:
    """Return a test of whether a reviewer asked to see a pair; ``kind`` is a degradation type, "" for all.

    ``answer`` gives the reviewer's own answer. Disagreements are pairs on which people gave different
    verdicts, the reviewer among them or not.
    """
    shows: dict[Show, Callable[[Pair], bool]] = {
        "todo": lambda pair: answer(pair) is None,
        "skipped": lambda pair: answer(pair) == "skip",
        "unsure": lambda pair: answer(pair) == "unsure",
        "decided": lambda pair: answer(pair) in VERDICTS,
        "disagreements": lambda pair: len(pair.votes) > 1,
        "all": lambda pair: True,
    }
    test = shows[show]
    return lambda pair: (not kind or pair.copy.type == kind) and test(pair)


def _shuffled(group_id: str) -> bytes:
    """Return an order that is the same for everybody, every time."""
    return hashlib.sha256(group_id.encode()).digest()
