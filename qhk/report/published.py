"""Results that papers print, by the names that our sets have."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parent / "published_results.csv"

SETS = {
    "koniq": "KonIQ-10k",
    "spaq": "SPAQ",
    "kadid": "KADID-10k",
    "pipal": "PIPAL",
    "live_wild": "LIVE-Wild",
    "agiqa_3k": "AGIQA-3K",
    "csiq": "CSIQ",
    "tid2013": "TID2013",
    "flive": "FLIVE",
}
"""Our name of a set -> the table's."""


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """One printed cell: of a method trained on ``train_set``, with the page or table that prints it."""

    method: str
    protocol: str
    train_set: str
    benchmark: str
    plcc: float | None
    srcc: float | None
    source: str


def published_results(benchmarks: Sequence[str]) -> list[PublishedResult]:
    """Return the printed results on those of our sets, in the table's order; ``benchmark`` is our name."""
    ours = {theirs: name for name, theirs in SETS.items() if name in benchmarks}
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [
            PublishedResult(
                method=row["method"],
                protocol=row["protocol"],
                train_set=row["train_set"],
                benchmark=ours[row["benchmark"]],
                plcc=float(row["plcc"]) if row["plcc"] else None,
                srcc=float(row["srcc"]) if row["srcc"] else None,
                source=row["source"],
            )
            for row in csv.DictReader(file)
            if row["benchmark"] in ours
        ]
