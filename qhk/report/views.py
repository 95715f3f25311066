"""What of the runs is looked at, and which rows of their results count for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qhk.errors import UserError
from qhk.evaluation.results import VALUE, Moment, ResultRow, why_not_counted
from qhk.report.runs import RunRecord, Runs

MIN_PARSED = "evaluation.min_parsed_fraction"


@dataclass(frozen=True, kw_only=True)
class View:
    """What of the runs is compared: which metric, moment and read-out, over which benchmarks."""

    metric: str
    moment: Moment
    readout: str
    benchmarks: tuple[str, ...]


def seen_as(moment: Moment) -> Moment:
    """Return the moment of a view that a row's belongs to.

    The end of the matched supervised control is an end like others', so that methods are tested against it.
    """
    return Moment.AFTER if moment is Moment.CONTROL else moment


def fits(row: ResultRow, moment: Moment, readout: str) -> bool:
    """Return whether a row counts for a moment and read-out.

    That of a scorer which is no policy counts for all of them: it stands beside every one.
    """
    return row.readout == VALUE or (seen_as(row.moment), row.readout) == (moment, readout)


def views(runs: Runs) -> list[tuple[Moment, str]]:
    """Return the moments and read-outs that any policy has: after training and the headline read-out first.

    Without any policy those of the other scorers.
    """
    headlines = {record.config.get("evaluation.headline") for record in runs.records}
    every = dict.fromkeys(
        (seen_as(row.moment), row.readout) for record in runs.records for row in record.rows
    )
    found = [view for view in every if view[1] != VALUE] or list(every)
    order = [Moment.AFTER, Moment.BEFORE]
    return sorted(found, key=lambda view: (order.index(view[0]), view[1] not in headlines, view[1]))


def choose_view(runs: Runs, *, metric: str, moment: str, readout: str | None) -> View:
    """Return the view with all benchmarks that have it. Raises ``UserError`` naming what there is instead."""
    rows = [row for record in runs.records for row in record.rows]
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    if metric not in metrics:
        raise UserError(f"metric={metric}: no run has it; there are {', '.join(metrics) or 'no results yet'}")
    measured = [row for row in rows if metric in row.metrics]
    having = [row for row in measured if seen_as(row.moment) == moment]
    if not having:
        raise UserError(f"moment={moment}: no run was measured then")
    known = {row.readout for row in having}
    readouts = [name for found, name in views(runs) if found == moment and name in known]
    chosen = readouts[0] if readout is None else readout
    if chosen not in readouts:
        raise UserError(f"readout={readout}: no such read-out; there are {', '.join(readouts)}")
    benchmarks = tuple(dict.fromkeys(row.benchmark for row in measured if fits(row, Moment(moment), chosen)))
    return View(metric=metric, moment=Moment(moment), readout=chosen, benchmarks=benchmarks)


def find_row(record: RunRecord, view: View, benchmark: str) -> ResultRow | None:
    """Return a run's row of a view: the latest, where a benchmark was measured at several steps."""
    rows = [
        row
        for row in record.rows
        if row.benchmark == benchmark and fits(row, view.moment, view.readout) and view.metric in row.metrics
    ]
    return max(rows, key=lambda row: row.step) if rows else None


def counted_row(record: RunRecord, view: View, benchmark: str) -> tuple[ResultRow | None, str]:
    """Return a run's row of a benchmark, or None and why there is none that counts, in a few words.

    As in a run's own means, a row does not count where too few images have a readable answer.
    """
    row = find_row(record, view, benchmark)
    if row is None:
        return None, why_missing(record)
    reason = why_not_counted(row, min_parsed_fraction=least_parsed(record))
    if not reason and math.isnan(row.metrics[view.metric].value):
        reason = "no value"
    return (None, reason) if reason else (row, "")


def is_seen(record: RunRecord, row: ResultRow) -> bool:
    """Return whether a run trained on a benchmark's set: as its results say, else by its settings.

    Settings of an evaluation say nothing of that. Of a set for several tasks the benchmark is named after
    the task as well.
    """
    if row.seen is not None or record.state == "evaluation":
        return bool(row.seen)
    name = row.benchmark.partition(".")[0]
    return any(key.split(".")[-2:] == ["data", name] for key in record.config)


def least_parsed(record: RunRecord) -> float:
    """Return the share of images that a run must have parsed for a cell to count, as its settings say."""
    least = record.config.get(MIN_PARSED)
    return float(least) if isinstance(least, int | float) else 0.0


def why_missing(record: RunRecord) -> str:
    """Return why a run has no row, in a few words."""
    if record.state in ("failed", "cancelled"):
        return f"{record.state}: {record.cause}" if record.cause else record.state
    if record.fault:
        return record.fault
    return "not measured" if record.state in ("done", "evaluation") else record.state
