"""What the page asks for, as plain values: windows of the queue, progress, agreement. No HTTP here."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from qhk.pairs.records import VERDICTS, Answer, Pair
from qhk.pairs.review.agreement import krippendorff_alpha, pairwise_agreement
from qhk.pairs.review.queue import Queue, Show, wanted
from qhk.pairs.review.reviews import Entry, Reviews

Side = Literal["original", "copy"]
SIDES: tuple[Side, ...] = get_args(Side)
MAX_WINDOW = 50


@dataclass(frozen=True, kw_only=True)
class Decide:
    """A reviewer's answer on one version of a pair; ``key`` tells a repeated request from a new one."""

    reviewer: str
    group_id: str
    version: int
    answer: Answer
    key: str
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Desk:
    """One manifest under review. ``blind`` keeps type, strength and judge's verdict away from the page."""

    reviews: Reviews
    queue: Queue
    blind: bool
    prefetch: int

    @property
    def manifest_id(self) -> str:
        """Return what tells this manifest from another one that an older page was opened for."""
        return hashlib.sha256(str(self.reviews.manifest.path.resolve()).encode()).hexdigest()[:16]

    def session(self, reviewer: str | None) -> dict[str, Any]:
        """Return what the page needs once."""
        self._refresh()
        with self.reviews.lock:
            return {
                "id": self.manifest_id,
                "manifest": self.reviews.manifest.path.name,
                "reviewer": reviewer,
                "total": len(self.queue),
                "blind": self.blind,
                "next": next_commands(self.reviews.manifest.path),
                "prefetch": self.prefetch,
                "types": [] if self.blind else self.queue.types(),
                "reviewers": self.reviews.reviewers(),
                "progress": None if reviewer is None else self.progress(reviewer),
            }

    def window(self, reviewer: str, *, show: Show, kind: str, start: int, count: int) -> dict[str, Any]:
        """Return up to ``count`` pairs of the queue from ``start`` on, then from its beginning."""
        self._refresh()
        with self.reviews.lock:
            keep = wanted(
                show,
                kind="" if self.blind else kind,
                answer=lambda pair: self.reviews.answer(pair, reviewer),
            )
            places = self.queue.window(keep, start=start, count=min(count, MAX_WINDOW))
            return {
                "pairs": [self._item(place, reviewer) for place in places],
                "total": len(self.queue),
            }

    def find(self, reviewer: str, group_id: str) -> dict[str, Any] | None:
        """Return the one pair of that name; None where the queue has none."""
        with self.reviews.lock:
            place = self.queue.place(group_id)
            return None if place is None else self._item(place, reviewer)

    def at(self, reviewer: str, place: int) -> dict[str, Any] | None:
        """Return the pair at a place of the queue, counted from 0; None beyond its end."""
        with self.reviews.lock:
            return self._item(place, reviewer) if 0 <= place < len(self.queue) else None

    def progress(self, reviewer: str) -> dict[str, Any]:
        """Return the reviewer's answers by kind, and answers per minute."""
        counts = self.reviews.counts(reviewer)
        return {
            "answers": dict(counts),
            "answered": sum(count for answer, count in counts.items() if answer != "skip"),
            "total": len(self.queue),
            "pace": self.reviews.pace(reviewer),
        }

    def decide(self, request: Decide) -> dict[str, Any]:
        """Write an answer to disk and return its outcome. Raises ``UserError`` for an unknown pair."""
        entry = self.reviews.decide(
            reviewer=request.reviewer,
            group_id=request.group_id,
            version=request.version,
            answer=request.answer,
            key=request.key,
            seconds=request.seconds,
        )
        return self._outcome(entry, request.reviewer)

    def undo(self, reviewer: str, key: str) -> dict[str, Any] | None:
        """Return the outcome of taking the latest answer back; None where there is nothing to take back."""
        entry = self.reviews.undo(reviewer=reviewer, key=key)
        return None if entry is None else self._outcome(entry, reviewer)

    def agreement(self) -> dict[str, Any]:
        """Return how far reviewers agree on the newest copies; ``unsure`` and ``skip`` are no verdicts."""
        with self.reviews.lock:
            pairs = [self.queue.pair(place) for place in range(len(self.queue))]
            items = [ratings for pair in pairs if (ratings := _verdicts(pair))]
        return {
            "between": [asdict(two) for two in pairwise_agreement(items)],
            "alpha": krippendorff_alpha(items),
            "shared": sum(len(ratings) > 1 for ratings in items),
            "disagreements": sum(len(set(ratings.values())) > 1 for ratings in items),
            "reviewers": {name: dict(self.reviews.counts(name)) for name in self.reviews.reviewers()},
        }

    def picture(self, group_id: str, version: int, side: Side) -> Path | None:
        """Return the file of one side of a pair; None for an unknown pair or version."""
        manifest = self.reviews.manifest
        with self.reviews.lock:
            pair = manifest.pairs.get(group_id)
            if pair is None or not 1 <= version <= pair.copy.version:
                return None
            return (
                manifest.source_path(pair)
                if side == "original"
                else manifest.copy_path(pair, version=version)
            )

    def _outcome(self, entry: Entry, reviewer: str) -> dict[str, Any]:
        return {
            "pair": self.find(reviewer, entry.group_id),
            "answer": entry.answer,
            "progress": self.progress(reviewer),
        }

    def _item(self, place: int, reviewer: str) -> dict[str, Any]:
        pair = self.queue.pair(place)
        item: dict[str, Any] = {
            "place": place,
            "id": pair.group_id,
            "version": pair.copy.version,
            "answer": self.reviews.answer(pair, reviewer),
        }
        if not self.blind:
            steps = pair.copy.degradations
            item["degradation"] = " + ".join(f"{step.type} {step.strength:g}" for step in steps)
            item["judge"] = None if pair.judgement is None else pair.judgement.verdict
        return item

    def _refresh(self) -> None:
        with self.reviews.lock:
            self.reviews.refresh()
            self.queue.extend()


def next_commands(manifest: Path) -> list[str]:
    """Return what is run once all reviewers are done; words that need quotes have them."""
    path = str(manifest)
    if not re.fullmatch(r"[\w./~-]+", path, re.ASCII):  # Hydra's quotes, within the shell's
        path = '"' + re.sub(r'(\\*)("|$)', lambda end: 2 * end[1] + end[2].replace('"', '\\"'), path) + '"'
    word = shlex.quote(f"pairs.manifest={path}")
    return [f"qhk data {step} {word}" for step in ("strengthen", "filter", "build")]


def _verdicts(pair: Pair) -> dict[str, str]:
    """Return reviewer -> verdict on the newest copy."""
    return {
        word.reviewer: word.verdict
        for word in pair.decisions.values()
        if word.version == pair.copy.version and word.verdict in VERDICTS and word.verdict is not None
    }
