"""Methods held against each other: the table of methods and benchmarks.

Values are those of ``results.json``; intervals and tests come from ``scoring``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qhk.errors import UserError
from qhk.report.runs import RunRecord, Runs
from qhk.report.scoring import Reader, Scored, aligned, read_answers, score_benchmark
from qhk.report.views import View, counted_row, find_row, is_seen
from qhk.statistics.comparison import (
    Estimate,
    Part,
    best_and_second,
    compare_methods,
    estimate,
    holm,
    probability_of_improvement,
)
from qhk.statistics.dependent import FieldTests, field_tests

RANGES = {
    **dict.fromkeys(("srcc", "plcc", "plcc_fitted", "krcc"), (-1.0, 1.0)),
    **dict.fromkeys(("accuracy",), (0.0, 1.0)),
    **dict.fromkeys(("rmse", "mae"), (0.0, math.inf)),
}
"""What a metric can be: intervals end there."""

AVERAGES = ("average", "unseen")
"""Columns that are means over benchmarks: of all, and of those that no method trained on."""

ERRORS = ("rmse", "mae")
"""Metrics of which less is better."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, and how far it is."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A method on a benchmark: mean and spread over its seeds, and what is not in them.

    ``values`` maps a seed to its value. ``std`` is unbiased, NaN for one seed. ``interval`` covers images and
    seeds (images alone for one seed); NaN where predictions are missing. ``missing`` maps the seeds without a
    value to the reason. ``best`` and ``second`` are set only where tests support them.
    """

    values: Mapping[int, float]
    mean: float
    std: float
    interval: Estimate
    missing: Mapping[int, str]
    best: bool = False
    second: bool = False


@dataclass(frozen=True, kw_only=True)
class ComparisonTable:
    """Methods x benchmarks of one view.

    ``average`` is over ``averaged``, the sets that all methods with any result have; ``unseen`` over
    ``unseen_sets``, those of them that no method trained on: both empty where that is all of them, or none.
    ``against`` maps a method and a benchmark (or average) to its difference from ``reference``; ``p`` is
    corrected by Holm over methods and benchmarks. ``improvement`` is the chance that a run of the method is
    better than one of ``reference``; ``field`` what formulas say of their mean answers over seeds, each by
    benchmark alone. ``num_images`` are the images of a benchmark that all runs
    answered, ``num_references`` their clusters; ``left_out`` says by benchmark which runs are in no test.
    """

    view: View
    methods: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Cell]]
    average: Mapping[str, Cell]
    averaged: tuple[str, ...]
    unseen: Mapping[str, Cell]
    unseen_sets: tuple[str, ...]
    reference: str
    against: Mapping[str, Mapping[str, Estimate]]
    improvement: Mapping[str, Mapping[str, float]]
    field: Mapping[str, Mapping[str, FieldTests]]
    num_images: Mapping[str, int]
    num_references: Mapping[str, int]
    left_out: Mapping[str, Mapping[str, str]]


def compare(
    runs: Runs,
    view: View,
    *,
    reference: str | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    progress: Progress = lambda what, done, of: None,
    read: Reader = read_answers,
) -> tuple[ComparisonTable, Mapping[str, Scored]]:
    """Return the table of a view and, by benchmark, the scores that its tests rest on.

    ``reference`` names the method that others are held against; the first one where it is None. Without
    resamples there are means and spreads only. ``read`` may remember files that several metrics share. Raises
    ``UserError`` for a method that there is not.
    """
    methods = runs.methods
    if not methods:
        raise UserError("no runs to compare")
    reference = next(iter(methods)) if reference is None else reference
    if reference not in methods:
        raise UserError(f"reference={reference}: no such method; there are {', '.join(methods)}")
    scored = {}
    for place, benchmark in enumerate(view.benchmarks if num_resamples else ()):
        progress(f"comparing on {benchmark}", place, len(view.benchmarks))
        found = score_benchmark(runs.records, view, benchmark, num_resamples=num_resamples, read=read)
        if found is not None:
            scored[benchmark] = found
    plain = {
        method: {
            benchmark: _cell(records, view, benchmark, scored.get(benchmark), confidence)
            for benchmark in view.benchmarks
        }
        for method, records in methods.items()
    }
    measured = [cells for cells in plain.values() if any(cell.values for cell in cells.values())]
    averaged = {"average": tuple(n for n in view.benchmarks if all(cells[n].values for cells in measured))}
    unseen = tuple(name for name in averaged["average"] if not _any_saw(runs, view, name))
    if 0 < len(unseen) < len(averaged["average"]):
        averaged["unseen"] = unseen
    averages = {
        column: {
            method: _average(
                records, [plain[method][name] for name in names], names, scored, confidence, view
            )
            for method, records in methods.items()
        }
        for column, names in averaged.items()
    }
    columns = {name: {name: scored[name]} for name in view.benchmarks if name in scored}
    for column, names in averaged.items():
        whole = all(name in scored for name in names)
        columns[column] = {name: scored[name] for name in names} if whole else {}
    pairs = _pairwise(list(methods), columns, methods, confidence)
    marked = _mark(plain, averages, pairs, view)
    return (
        ComparisonTable(
            view=view,
            methods=tuple(methods),
            cells={method: {name: marked[name][method] for name in view.benchmarks} for method in methods},
            average=marked["average"],
            averaged=averaged["average"],
            unseen=marked.get("unseen", {}),
            unseen_sets=averaged.get("unseen", ()),
            reference=reference,
            against=_against(reference, list(methods), pairs),
            improvement=_improvement(reference, plain, averaged, view),
            field=_field(reference, methods, view, scored, confidence),
            num_images={name: len(found.opinions) for name, found in scored.items()},
            num_references={name: found.scores.num_clusters for name, found in scored.items()},
            left_out={name: found.left_out for name, found in scored.items() if found.left_out},
        ),
        scored,
    )


def _any_saw(runs: Runs, view: View, benchmark: str) -> bool:
    """Return whether any run with a row of a benchmark trained on its set."""
    rows = ((record, find_row(record, view, benchmark)) for record in runs.records)
    return any(row is not None and is_seen(record, row) for record, row in rows)


def _seeds(records: Sequence[RunRecord], scored: Scored) -> dict[int, int]:
    """Return seed -> row of the scores for those runs of a method that were scored."""
    places = {id(record): place for place, record in enumerate(scored.records)}
    return {record.seed: places[id(record)] for record in records if id(record) in places}


def _cell(
    records: Sequence[RunRecord], view: View, benchmark: str, scored: Scored | None, confidence: float
) -> Cell:
    values, missing = {}, {}
    for record in records:
        row, reason = counted_row(record, view, benchmark)
        if row is None:
            missing[record.seed] = reason
        else:
            values[record.seed] = row.metrics[view.metric].value
    interval = _mean_interval(records, values, {} if scored is None else {benchmark: scored}, confidence)
    return _filled(values, missing, interval, view)


def _average(
    records: Sequence[RunRecord],
    cells: Sequence[Cell],
    averaged: Sequence[str],
    scored: Mapping[str, Scored],
    confidence: float,
    view: View,
) -> Cell:
    """Return the mean over benchmarks, of the seeds that have all of them."""
    seeds = [record.seed for record in records]
    values = {
        seed: math.fsum(cell.values[seed] for cell in cells) / len(cells)
        for seed in seeds
        if cells and all(seed in cell.values for cell in cells)
    }
    missing = {seed: "not on every benchmark" for seed in seeds if seed not in values}
    known = {name: scored[name] for name in averaged if name in scored}
    interval = _mean_interval(records, values, known if len(known) == len(averaged) else {}, confidence)
    return _filled(values, missing, interval, view)


def _filled(values: Mapping[int, float], missing: Mapping[int, str], interval: Estimate, view: View) -> Cell:
    found = np.array(list(values.values()))
    least, most = RANGES.get(view.metric, (-math.inf, math.inf))
    interval = replace(
        interval,
        low=float(np.clip(interval.low, least, most)),
        high=float(np.clip(interval.high, least, most)),
    )
    return Cell(
        values=values,
        mean=float(found.mean()) if found.size else math.nan,
        std=float(found.std(ddof=1)) if found.size > 1 else math.nan,
        interval=interval,
        missing=missing,
    )


def _mean_interval(
    records: Sequence[RunRecord],
    values: Mapping[int, float],
    scored: Mapping[str, Scored],
    confidence: float,
) -> Estimate:
    """Return the interval of a method's mean over seeds and benchmarks."""
    mean = math.fsum(values.values()) / len(values) if values else math.nan
    parts = []
    for found in scored.values():
        rows = [row for seed, row in _seeds(records, found).items() if seed in values]
        if not rows:
            return estimate(mean, [], confidence=confidence)
        weights = np.zeros(len(found.records))
        weights[rows] = 1 / len(rows)
        part = found.scores.part(weights)
        parts.append(Part(part.variance / len(scored) ** 2, part.df))
    if len(values) > 1 and parts:
        variance = float(np.var(list(values.values()), ddof=1)) / len(values)
        parts.append(Part(variance, len(values) - 1.0))
    return estimate(mean, parts, confidence=confidence)


Pairs = Mapping[str, Mapping[tuple[str, str], Estimate]]


def _pairwise(
    names: Sequence[str],
    columns: Mapping[str, Mapping[str, Scored]],
    methods: Mapping[str, Sequence[RunRecord]],
    confidence: float,
) -> Pairs:
    """Return, by column, the difference of every two methods whose runs have all benchmarks of the column."""
    found: dict[str, dict[tuple[str, str], Estimate]] = {}
    for column, scored in columns.items():
        found[column] = {}
        if not scored:
            continue
        records, scores = aligned(list(scored.values()))
        places = {id(record): place for place, record in enumerate(records)}
        rows = {
            name: {record.seed: places[id(record)] for record in methods[name] if id(record) in places}
            for name in names
        }
        for first, second in itertools.combinations(names, 2):
            if rows[first] and rows[second]:
                found[column][first, second] = compare_methods(
                    scores, rows[first], rows[second], confidence=confidence
                )
    return found


def _corrected(
    pairs: Pairs, keep: Callable[[tuple[str, str]], bool]
) -> dict[tuple[str, tuple[str, str]], float]:
    """Return Holm's p of the chosen pairs over all columns but the averages, each a family of its own."""
    corrected: dict[tuple[str, tuple[str, str]], float] = {}
    for family in ([name for name in pairs if name not in AVERAGES], *([name] for name in AVERAGES)):
        keys = [(column, pair) for column in family for pair in pairs.get(column, ()) if keep(pair)]
        p = holm([pairs[column][pair].p for column, pair in keys])
        corrected.update(zip(keys, p, strict=True))
    return corrected


def _against(reference: str, names: Sequence[str], pairs: Pairs) -> dict[str, dict[str, Estimate]]:
    """Return each method's difference from the reference by column, with corrected p."""
    corrected = _corrected(pairs, lambda pair: reference in pair)
    found: dict[str, dict[str, Estimate]] = {name: {} for name in names if name != reference}
    for (column, pair), p in corrected.items():
        difference = pairs[column][pair]
        other = pair[1] if pair[0] == reference else pair[0]
        if pair[0] == reference:
            difference = replace(
                difference, value=-difference.value, low=-difference.high, high=-difference.low
            )
        found[other][column] = replace(difference, p=p)
    return found


def _improvement(
    reference: str,
    plain: Mapping[str, Mapping[str, Cell]],
    averaged: Mapping[str, Sequence[str]],
    view: View,
) -> dict[str, dict[str, float]]:
    """Return, by method and column, how often its runs are better than those of the reference."""
    columns = {**{name: (name,) for name in view.benchmarks}, **averaged}
    found: dict[str, dict[str, float]] = {name: {} for name in plain if name != reference}
    for method, own in found.items():
        for column, names in columns.items():
            sides = [
                [np.array(list(plain[side][name].values.values())) for name in names]
                for side in (method, reference)
            ]
            if names and all(values.size for side in sides for values in side):
                above = probability_of_improvement(*sides)
                own[column] = 1 - above if view.metric in ERRORS else above
    return found


def _field(
    reference: str,
    methods: Mapping[str, Sequence[RunRecord]],
    view: View,
    scored: Mapping[str, Scored],
    confidence: float,
) -> dict[str, dict[str, FieldTests]]:
    """Return the field's tests of each method against the reference, by benchmark; of correlations alone."""
    found: dict[str, dict[str, FieldTests]] = {name: {} for name in methods if name != reference}
    for benchmark, each in scored.items() if view.metric in ("srcc", "plcc") else ():
        rows = {name: list(_seeds(records, each).values()) for name, records in methods.items()}
        for method in found:
            if rows[method] and rows[reference]:
                both = [each.records[row] for row in (*rows[method], *rows[reference])]
                measured = [find_row(record, view, benchmark) for record in both]
                found[method][benchmark] = field_tests(
                    each.answers[rows[method]].mean(axis=0),
                    each.answers[rows[reference]].mean(axis=0),
                    each.opinions,
                    ranked=view.metric == "srcc",
                    on_scale=all(row is not None and "rmse" in row.metrics for row in measured),
                    confidence=confidence,
                )
    return found


def _mark(
    plain: Mapping[str, Mapping[str, Cell]],
    averages: Mapping[str, Mapping[str, Cell]],
    pairs: Pairs,
    view: View,
) -> dict[str, dict[str, Cell]]:
    """Return the cells by column and method, with best and second marked where tests support it."""
    names = list(plain)
    corrected = _corrected(pairs, lambda pair: True)
    sign = -1.0 if view.metric in ERRORS else 1.0
    marked = {}
    for column in (*view.benchmarks, *averages):
        cells = averages.get(column) or {name: plain[name][column] for name in names}
        p = np.ones((len(names), len(names)))
        for (i, first), (j, second) in itertools.combinations(enumerate(names), 2):
            value = corrected.get((column, (first, second)), math.nan)
            one, other = cells[first], cells[second]
            # One seed says nothing of others, and a test of other images than the means' may differ in sign.
            if math.isnan(value) or min(len(one.values), len(other.values)) < 2:
                continue
            if (pairs[column][first, second].value > 0) == (one.mean > other.mean):
                p[i, j] = p[j, i] = value
        means = sign * np.array([cell.mean for cell in cells.values()])
        best, second_best = best_and_second(means, p, level=0.05)
        # All methods alike is no news: then none is marked.
        if best.sum() == np.isfinite(means).sum():
            best = np.zeros_like(best)
        marked[column] = {
            name: replace(cell, best=bool(best[place]), second=bool(second_best[place]))
            for place, (name, cell) in enumerate(cells.items())
        }
    return marked
