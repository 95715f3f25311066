"""The answers of all reviewers: written to the manifest one by one, taken back, counted."""

from __future__ import annotations

import statistics
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.files import RESTORE, parse_json, reading
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Answer, Pair, decision_row

LONGEST_PAUSE_S = 60.0
"""A longer time between two answers was a break, and says nothing about the pace."""

RECENT_ANSWERS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One answer as it was given; ``replaces`` is what the reviewer had said of that version before."""

    key: str
    group_id: str
    version: int
    answer: Answer | None
    replaces: Answer | None
    time: datetime


class Reviews:
    """Answers over one manifest. Each is on disk when its method returns; safe to call from any thread.

    A request carries a ``key`` of its own: the same key again (a browser that never heard the reply)
    returns the first outcome and writes nothing.
    """

    def __init__(self, manifest: PairManifest) -> None:
        self.manifest = manifest
        self.lock = threading.RLock()
        self._history: dict[str, list[Entry]] = {}
        self._outcomes: dict[str, Entry] = {}
        self._counts: dict[str, Counter[Answer]] = {}
        for row in _decisions_of(manifest.path):
            self._remember(row)

    def answer(self, pair: Pair, reviewer: str) -> Answer | None:
        """Return what the reviewer said of the newest copy."""
        decision = pair.decisions.get((reviewer, pair.copy.version))
        return None if decision is None else decision.answer

    def reviewers(self) -> list[str]:
        """Return everybody who ever answered, by name."""
        with self.lock:
            return sorted(self._history)

    def counts(self, reviewer: str) -> Counter[Answer]:
        """Return how many of the newest copies have each answer of the reviewer."""
        with self.lock:
            if reviewer not in self._counts:
                answers = (self.answer(pair, reviewer) for pair in self.manifest)
                self._counts[reviewer] = Counter(answer for answer in answers if answer is not None)
            return Counter(self._counts[reviewer])

    def refresh(self) -> None:
        """Take in what other processes appended to the manifest."""
        with self.lock:
            if self.manifest.refresh():
                self._counts.clear()

    def decide(
        self, *, reviewer: str, group_id: str, version: int, answer: Answer, key: str, seconds: float | None
    ) -> Entry:
        """Write an answer and return it. ``seconds`` is how long the pair was looked at.

        Raises ``UserError`` for a pair or a version of it that the manifest does not hold.
        """
        with self.lock:
            if key in self._outcomes:
                return self._outcomes[key]
            pair = self.manifest.pairs.get(group_id)
            if pair is None or not 1 <= version <= pair.copy.version:
                raise UserError(f"{group_id}: the manifest has no version {version} of such a pair; reload")
            before = pair.decisions.get((reviewer, version))
            row = decision_row(pair, reviewer=reviewer, verdict=answer)
            return self._write(
                row
                | {"version": version, "key": key, "seconds": seconds}
                | {"replaces": None if before is None else before.answer}
            )

    def undo(self, *, reviewer: str, key: str) -> Entry | None:
        """Take the reviewer's latest answer back, so that what it replaced counts again; None without one."""
        with self.lock:
            if key in self._outcomes:
                return self._outcomes[key]
            history = self._history.get(reviewer)
            if not history:
                return None
            last = history[-1]
            row = decision_row(self.manifest.pairs[last.group_id], reviewer=reviewer, verdict=last.replaces)
            return self._write(
                row | {"version": last.version, "key": key, "undoes": last.key, "replaces": last.answer}
            )

    def pace(self, reviewer: str) -> float | None:
        """Return answers per minute over the latest ones, breaks left out; None before there are four."""
        with self.lock:
            times = [entry.time for entry in self._history.get(reviewer, [])[-RECENT_ANSWERS:]]
        gaps = [(b - a).total_seconds() for a, b in zip(times, times[1:], strict=False)]
        gaps = [gap for gap in gaps if 0 < gap <= LONGEST_PAUSE_S]
        return 60 / statistics.fmean(gaps) if len(gaps) >= 3 else None

    def _write(self, row: dict[str, Any]) -> Entry:
        pair = self.manifest.pairs[row["group_id"]]
        self.manifest.append([row])
        newest = row["version"] == pair.copy.version
        if newest and row["reviewer"] in self._counts:
            counts = self._counts[row["reviewer"]]
            counts.subtract([answer for answer in (row["replaces"],) if answer is not None])
            counts.update([answer for answer in (row["verdict"],) if answer is not None])
        written = pair.decisions[row["reviewer"], row["version"]]
        return self._remember(row | {"time": written.time})

    def _remember(self, row: Mapping[str, Any]) -> Entry:
        entry = Entry(
            key=row.get("key", ""),
            group_id=row["group_id"],
            version=row["version"],
            answer=row["verdict"],
            replaces=row.get("replaces"),
            time=datetime.fromisoformat(row["time"]),
        )
        history = self._history.setdefault(row["reviewer"], [])
        if "undoes" in row:
            history[:] = [past for past in history if past.key != row["undoes"]]
        elif entry.answer is not None:
            history.append(entry)
        if entry.key:
            self._outcomes[entry.key] = entry
        return entry


def _decisions_of(path: Path) -> Iterator[dict[str, Any]]:
    """Return the decisions of a manifest in their order, without parsing its other records."""
    with reading(path, "a manifest of pairs", RESTORE), path.open("rb") as file:
        for line in file:
            if b'"decision"' not in line or not line.endswith(b"\n"):
                continue
            row = parse_json(line)
            if row["kind"] == "decision":
                yield row
