"""How the copies of images that were perturbed are scored, by method: means over its runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from qhk.evaluation.results import PerturbedRow
from qhk.report.runs import RunRecord, Runs
from qhk.report.views import seen_as


def perturbed_of(runs: Runs) -> list[dict[str, Any]]:
    """Return, by benchmark, moment and kind of perturbation, what each method that was measured does.

    Of a method: ``above``, ``drop``, ``unchanged`` and ``strength_srcc`` over all strengths, the curves
    ``above_by_strength`` and ``drop_by_strength`` (empty for replacements), and the number of ``runs`` that
    they are means of. Of several steps of a run the last counts.
    """
    found: dict[tuple[str, str, str, str], dict[str, list[list[PerturbedRow]]]] = {}
    for record in runs.records:
        for key, rows in _last_rows(record):
            found.setdefault(key, {}).setdefault(record.method, []).append(rows)
    return [
        {
            "benchmark": benchmark,
            "moment": moment,
            "family": family,
            "kind": kind,
            "methods": {method: _summary(parts) for method, parts in methods.items()},
        }
        for (benchmark, moment, family, kind), methods in found.items()
    ]


def _last_rows(record: RunRecord) -> Iterator[tuple[tuple[str, str, str, str], list[PerturbedRow]]]:
    """Yield a run's rows of one kind, all strengths, of the last step of each moment."""
    grouped: dict[tuple[str, str, str, str], list[PerturbedRow]] = {}
    for row in record.perturbed:
        grouped.setdefault((row.benchmark, seen_as(row.moment).value, row.family, row.kind), []).append(row)
    for key, rows in grouped.items():
        last = max(row.step for row in rows)
        yield key, [row for row in rows if row.step == last]


def _summary(parts: Sequence[Sequence[PerturbedRow]]) -> dict[str, Any]:
    whole = [row for rows in parts for row in rows if row.strength is None]
    strengths = sorted({row.strength for rows in parts for row in rows if row.strength is not None})
    by_strength = [[row for rows in parts for row in rows if row.strength == step] for step in strengths]
    return {
        "runs": len(parts),
        "n": sum(row.n for row in whole),
        "n_pairs": sum(row.n_pairs for row in whole),
        **{name: _mean(whole, name) for name in ("above", "drop", "unchanged", "strength_srcc")},
        "above_by_strength": [_mean(rows, "above") for rows in by_strength],
        "drop_by_strength": [_mean(rows, "drop") for rows in by_strength],
    }


def _mean(rows: Sequence[PerturbedRow], name: str) -> float:
    values = [row.metrics[name].value for row in rows if name in row.metrics]
    return math.fsum(values) / len(values) if values else math.nan
