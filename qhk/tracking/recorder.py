"""``metrics.jsonl``: the record of a run, a line for what was measured at a step. W&B only mirrors it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from qhk.errors import UserError
from qhk.files import append_json_lines, drop_torn_line, json_line, read_json_lines, write_atomically
from qhk.tracking.names import find_metric


class MetricSection(StrEnum):
    """What a row was measured in. Steps are supervised steps in the cold start, training steps elsewhere."""

    COLD_START = "cold_start"
    TRAIN = "train"
    VALIDATION = "validation"
    EVAL = "eval"


class Recorder(Protocol):
    """Takes a step's metrics: the file recorder, and the live W&B mirror."""

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One line of the record; a value that was not finite is NaN."""

    step: int
    section: MetricSection
    metrics: Mapping[str, float]


class MetricsRecorder:
    """Appends rows to ``path``, each synced to disk before ``record`` returns."""

    def __init__(self, path: Path) -> None:
        """Open the record at ``path``, new or old; a line torn by a killed writer is cut off."""
        self.path = path
        drop_torn_line(path)

    def record(self, *, step: int, section: MetricSection, metrics: Mapping[str, float]) -> None:
        """Append one row. NaN and infinities are written as null, since JSON has no word for them.

        Raises ``UserError`` for an undeclared name; then nothing is written.
        """
        for name in metrics:
            find_metric(name)
        row = {"step": step, "section": section.value}
        append_json_lines(self.path, [row | {name: _plain(value) for name, value in metrics.items()}])

    def cut_after(self, step: int, *, sections: Collection[MetricSection]) -> None:
        """Drop the rows of ``sections`` beyond ``step``, in one atomic rewrite; rows of other sections stay.

        For a resume: everything after the checkpoint will be recorded again. ``step`` -1 drops them all.
        """
        rows = _read_rows(self.path)
        kept = [row for row in rows if row["section"] not in sections or row["step"] <= step]
        if len(kept) < len(rows):
            write_atomically(self.path, "".join(json_line(row) for row in kept))


def read_metrics(path: Path) -> list[MetricRow]:
    """Return the rows of a record in order, null as NaN; empty without a file, a torn last line left out.

    Rows of one step and section (several benchmarks, or an evaluation repeated by a resume) come as one,
    in the place of the first; a name recorded twice has its later value. Raises ``UserError`` naming the
    file where a row has no step or section.
    """
    rows: dict[tuple[int, str], MetricRow] = {}
    for row in _read_rows(path):
        try:
            step, section = row.pop("step"), MetricSection(row.pop("section"))
        except (KeyError, ValueError):
            raise UserError(
                f"{path} holds a row without step or known section: not a metric record"
            ) from None
        values = {name: math.nan if value is None else value for name, value in row.items()}
        earlier = rows[step, section].metrics if (step, section) in rows else {}
        rows[step, section] = MetricRow(step=step, section=section, metrics={**earlier, **values})
    return list(rows.values())


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the plain rows of a record; those of earlier versions, which have ``stage``, get ``section``."""
    rows = read_json_lines(path)
    for row in rows:
        if "stage" in row:
            row["section"] = row.pop("stage")
    return rows


def _plain(value: Any) -> float | int | None:
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
