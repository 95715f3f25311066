"""``metrics.jsonl``: the record of a run, a line for what was measured at a step. All else mirrors it."""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from qhk.errors import UserError
from qhk.files import append_json_lines, drop_torn_line, keep_rows, read_json_lines
from qhk.tracking.names import find_metric


class MetricSection(StrEnum):
    """What a row was measured in. Steps are supervised steps in the cold start, training steps elsewhere."""

    COLD_START = "cold_start"
    TRAIN = "train"
    VALIDATION = "validation"
    EVAL = "eval"


class Recorder(Protocol):
    """Takes a step's metrics: the file recorder, and mirrors."""

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
        """Take the rows of ``sections`` beyond ``step`` out, see ``keep_rows``; rows of other sections stay.

        For a resume: everything after the checkpoint will be recorded again. ``step`` -1 takes them all.
        """
        _read_rows(self.path)
        keep_rows(self.path, lambda row: _section(row) not in sections or row["step"] <= step)


def missing_steps(path: Path, section: MetricSection, *, last: int) -> list[int]:
    """Return which of the steps 1 to ``last`` have no row of ``section`` in the record at ``path``."""
    there = {row.step for row in read_metrics(path) if row.section is section}
    return [step for step in range(1, last + 1) if step not in there]


def read_metrics(path: Path) -> list[MetricRow]:
    """Return the rows of a record in order, null as NaN; empty without a file, a torn last line left out.

    Rows of one step and section (several benchmarks, or an evaluation repeated by a resume) come as one,
    in the place of the first; a name recorded twice has its later value. Raises ``UserError`` naming the
    file where a row is no metric record.
    """
    rows: dict[tuple[int, str], MetricRow] = {}
    for row in read_rows(path):
        earlier = rows.get((row.step, row.section))
        known = earlier.metrics if earlier is not None else {}
        rows[row.step, row.section] = replace(row, metrics={**known, **row.metrics})
    return list(rows.values())


def read_rows(path: Path) -> list[MetricRow]:
    """Return the rows of a record as they were written, else as ``read_metrics`` does."""
    rows = []
    for row in _read_rows(path):
        step, section = row.pop("step"), _section(row)
        row.pop("section", row.pop("stage", None))
        values = {name: math.nan if value is None else value for name, value in row.items()}
        rows.append(MetricRow(step=step, section=section, metrics=values))
    return rows


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the plain rows of a record. Raises ``UserError`` where one has no step, section or numbers."""
    rows = read_json_lines(path, step=int)
    for row in rows:
        try:
            _section(row)
        except ValueError:
            raise UserError(
                f"{path} holds a row without known section, at step {row['step']}: not a metric record"
            ) from None
        for name, value in row.items():
            if name not in ("section", "stage") and type(value) not in (int, float, types.NoneType):
                raise UserError(f"{path} holds {name} {value!r}, at step {row['step']}: not a metric record")
    return rows


def _section(row: Mapping[str, Any]) -> MetricSection:
    """Return what a row was measured in; those of earlier versions call it ``stage``."""
    return MetricSection(str(row["stage"] if "stage" in row else row.get("section")))


def _plain(value: Any) -> float | int | None:
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
