"""Methods held against each other: the table of methods and benchmarks, and the effects of modules.

Values are those of ``results.json``. Intervals and tests come from the predictions: all runs that are
compared on a benchmark are redrawn with the same references, over the images that every one of them answered.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qhk.errors import UserError
from qhk.evaluation.predictions import Prediction, predictions_path, read_predictions
from qhk.evaluation.results import Moment, ResultRow, why_not_counted
from qhk.report.runs import RunRecord, Runs, changed_keys
from qhk.statistics.bootstrap import RESAMPLED, cluster_index, resampled_mean
from qhk.statistics.comparison import (
    BenchmarkScores,
    Estimate,
    Part,
    best_and_second,
    compare_methods,
    estimate,
    holm,
    score_runs,
)
from qhk.statistics.correlation import POINT_METRICS, Scores
from qhk.statistics.effects import Effects, Run, effect_sentence, module_effects

OFF = "none"
"""The level of a module that is left out: ``none``, 0, false, or a key that the config does not have."""

RANGES = {
    **dict.fromkeys(("srcc", "plcc", "plcc_fitted", "krcc"), (-1.0, 1.0)),
    **dict.fromkeys(("accuracy",), (0.0, 1.0)),
    **dict.fromkeys(("rmse", "mae"), (0.0, math.inf)),
}
"""What a metric can be: intervals end there."""

ERRORS = ("rmse", "mae")
"""Metrics of which less is better."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, and how far it is."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What of the runs is compared: which metric, moment and read-out, over which benchmarks."""

    metric: str
    moment: Moment
    readout: str
    benchmarks: tuple[str, ...]


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

    ``average`` is over ``averaged``, the sets that all methods with any result have.
    ``against`` maps a method and a benchmark (or "average") to its difference from ``reference``; ``p`` is
    corrected by Holm over methods and benchmarks. ``num_images`` are the images of a benchmark that all runs
    answered, ``num_references`` their clusters; ``left_out`` says by benchmark which runs are in no test.
    """

    view: View
    methods: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Cell]]
    average: Mapping[str, Cell]
    averaged: tuple[str, ...]
    reference: str
    against: Mapping[str, Mapping[str, Estimate]]
    num_images: Mapping[str, int]
    num_references: Mapping[str, int]
    left_out: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The runs of a benchmark that can be tested, in order, with their scores.

    ``left_out`` maps the others that have a value to the reason why it is in no test.
    """

    records: tuple[RunRecord, ...]
    scores: BenchmarkScores
    num_images: int
    left_out: Mapping[str, str]


def views(runs: Runs) -> list[tuple[Moment, str]]:
    """Return the moments and read-outs that any run has: after training and the headline read-out first."""
    headlines = {record.config.get("evaluation.headline") for record in runs.records}
    found = dict.fromkeys((row.moment, row.readout) for record in runs.records for row in record.rows)
    order = [Moment.AFTER, Moment.BEFORE, Moment.CONTROL]
    return sorted(found, key=lambda view: (order.index(view[0]), view[1] not in headlines, view[1]))


def choose_view(runs: Runs, *, metric: str, moment: str, readout: str | None) -> View:
    """Return the view with all benchmarks that have it. Raises ``UserError`` naming what there is instead."""
    rows = [row for record in runs.records for row in record.rows]
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    if metric not in metrics:
        raise UserError(f"metric={metric}: no run has it; there are {', '.join(metrics) or 'no results yet'}")
    having = [row for row in rows if metric in row.metrics and row.moment == moment]
    if not having:
        raise UserError(f"moment={moment}: no run was measured then")
    known = {row.readout for row in having}
    readouts = [name for found, name in views(runs) if found == moment and name in known]
    chosen = readouts[0] if readout is None else readout
    if chosen not in readouts:
        raise UserError(f"readout={readout}: no such read-out; there are {', '.join(readouts)}")
    benchmarks = tuple(dict.fromkeys(row.benchmark for row in having if row.readout == chosen))
    return View(metric=metric, moment=Moment(moment), readout=chosen, benchmarks=benchmarks)


def find_row(record: RunRecord, view: View, benchmark: str) -> ResultRow | None:
    """Return a run's row of a view: the latest, where a benchmark was measured at several steps."""
    rows = [
        row
        for row in record.rows
        if (row.benchmark, row.moment, row.readout) == (benchmark, view.moment, view.readout)
        and view.metric in row.metrics
    ]
    return max(rows, key=lambda row: row.step) if rows else None


def compare(
    runs: Runs,
    view: View,
    *,
    reference: str | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    progress: Progress = lambda what, done, of: None,
) -> tuple[ComparisonTable, Mapping[str, Scored]]:
    """Return the table of a view and, by benchmark, the scores that its tests rest on.

    ``reference`` names the method that others are held against; the first one where it is None. Without
    resamples there are means and spreads only. Raises ``UserError`` for a method that there is not.
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
        found = score_benchmark(runs.records, view, benchmark, num_resamples=num_resamples)
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
    averaged = tuple(name for name in view.benchmarks if all(cells[name].values for cells in measured))
    average = {
        method: _average(
            records, [plain[method][name] for name in averaged], averaged, scored, confidence, view
        )
        for method, records in methods.items()
    }
    columns = {name: {name: scored[name]} for name in view.benchmarks if name in scored}
    whole = all(name in scored for name in averaged)
    columns["average"] = {name: scored[name] for name in averaged} if whole else {}
    pairs = _pairwise(list(methods), columns, methods, confidence)
    marked = _mark(plain, average, pairs, view)
    return (
        ComparisonTable(
            view=view,
            methods=tuple(methods),
            cells={method: {name: marked[name][method] for name in view.benchmarks} for method in methods},
            average=marked["average"],
            averaged=averaged,
            reference=reference,
            against=_against(reference, list(methods), pairs),
            num_images={name: found.num_images for name, found in scored.items()},
            num_references={name: found.scores.num_clusters for name, found in scored.items()},
            left_out={name: found.left_out for name, found in scored.items() if found.left_out},
        ),
        scored,
    )


MIN_PARSED = "evaluation.min_parsed_fraction"


def counted_row(record: RunRecord, view: View, benchmark: str) -> tuple[ResultRow | None, str]:
    """Return a run's row of a benchmark, or None and why there is none that counts, in a few words.

    As in a run's own means, a row does not count where too few images have a readable answer.
    """
    row = find_row(record, view, benchmark)
    if row is None:
        return None, _why_missing(record)
    reason = why_not_counted(row, min_parsed_fraction=least_parsed(record))
    if not reason and math.isnan(row.metrics[view.metric].value):
        reason = "no value"
    return (None, reason) if reason else (row, "")


def least_parsed(record: RunRecord) -> float:
    """Return the share of images that a run must have parsed for a cell to count, as its settings say."""
    least = record.config.get(MIN_PARSED)
    return float(least) if isinstance(least, int | float) else 0.0


def score_benchmark(
    records: Sequence[RunRecord], view: View, benchmark: str, *, num_resamples: int
) -> Scored | None:
    """Return the scores of the runs with predictions of a benchmark; None where there are none.

    Over the images that all of them answered. A run of another part of the set, with other opinions of its
    images, without a correlation or with a file that cannot be read, is left out, with the reason.
    """
    answered: list[tuple[RunRecord, dict[str, Prediction]]] = []
    left_out: dict[str, str] = {}
    part: tuple[str, str, bool] | None = None
    opinions: dict[str, float | None] = {}
    for record in records:
        row, _ = counted_row(record, view, benchmark)
        if row is None:
            continue
        try:
            predictions = [item for item in predictions_of(record.directory, row) if has_answer(item)]
        except UserError as error:
            left_out[record.label] = str(error)
            continue
        part = part or (row.split, row.protocol, row.miniature)
        if not predictions:
            left_out[record.label] = "no predictions"
        elif (row.split, row.protocol, row.miniature) != part:
            left_out[record.label] = f"split {row.split}, protocol {row.protocol}: another part of the set"
        elif any(opinions.get(item.id, item.mos) != item.mos for item in predictions):
            left_out[record.label] = "other opinions of the same images"
        else:
            opinions.update((item.id, item.mos) for item in predictions)
            answered.append((record, {item.id: item for item in predictions}))
    common = (
        [id_ for id_ in answered[0][1] if all(id_ in images for _, images in answered)] if answered else []
    )
    if len(common) < 3:
        return None
    references = [
        next((images[id_].reference for _, images in answered if images[id_].reference is not None), None)
        for id_ in common
    ]
    first = [answered[0][1][id_] for id_ in common]
    if view.metric in POINT_METRICS:
        point, resampled = POINT_METRICS[view.metric], RESAMPLED[view.metric]
        truth = np.array([item.mos for item in first], dtype=np.float64)
        values = np.array(
            [[images[id_].clipped for id_ in common] for _, images in answered], dtype=np.float64
        )
    elif view.metric == "accuracy":
        point, resampled, truth = _mean_of_first, resampled_mean, np.zeros(len(common))
        values = np.array([[_is_right(images[id_]) for id_ in common] for _, images in answered], float)
    else:
        return None
    kept = [place for place, run in enumerate(values) if not math.isnan(point(run, truth))]
    left_out.update(
        (record.label, "no value over the images that all runs answered")
        for place, (record, _) in enumerate(answered)
        if place not in kept
    )
    if not kept:
        return None
    scores = score_runs(
        values[kept],
        truth,
        cluster_index(references),
        point=point,
        resampled=resampled,
        num_resamples=num_resamples,
        seed=int.from_bytes(benchmark.encode()[-4:].rjust(4), "big"),
    )
    scored = tuple(answered[place][0] for place in kept)
    return Scored(records=scored, scores=scores, num_images=len(common), left_out=left_out)


def _mean_of_first(prediction: Scores, _mos: Scores) -> float:
    return float(np.mean(prediction))


def has_answer(item: Prediction) -> bool:
    """Return whether an image has a readable answer."""
    return item.choice is not None if item.labels else item.clipped is not None and item.mos is not None


def _is_right(item: Prediction) -> float:
    return float(dict(item.choice or {}) == dict(item.labels))


def predictions_of(directory: Path, row: ResultRow) -> list[Prediction]:
    """Return the predictions that a row of results was measured on; empty where the file is gone."""
    for before in (row.moment is Moment.BEFORE, False):
        path = predictions_path(
            directory, step=row.step, before=before, readout=row.readout, benchmark=row.benchmark
        )
        if path.exists():
            return read_predictions(path)
    return []


def _seeds(records: Sequence[RunRecord], scored: Scored) -> dict[int, int]:
    """Return seed -> row of the scores for those runs of a method that were scored."""
    places = {id(record): place for place, record in enumerate(scored.records)}
    return {record.seed: places[id(record)] for record in records if id(record) in places}


def _why_missing(record: RunRecord) -> str:
    if record.state in ("failed", "cancelled"):
        return f"{record.state}: {record.cause}" if record.cause else record.state
    if record.fault:
        return record.fault
    return "not measured" if record.state in ("done", "evaluation") else record.state


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
        aligned = _aligned(list(scored.values()))
        records, scores = aligned
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


def _aligned(scored: Sequence[Scored]) -> tuple[list[RunRecord], list[BenchmarkScores]]:
    """Return the runs that all benchmarks have, and each benchmark's scores of these in their order."""
    shared = [
        record
        for record in scored[0].records
        if all(any(record is other for other in found.records) for found in scored)
    ]
    aligned = []
    for found in scored:
        places = {id(record): place for place, record in enumerate(found.records)}
        rows = [places[id(record)] for record in shared]
        aligned.append(
            BenchmarkScores(
                value=found.scores.value[rows],
                redrawn=found.scores.redrawn[rows],
                num_clusters=found.scores.num_clusters,
            )
        )
    return shared, aligned


def _corrected(
    pairs: Pairs, keep: Callable[[tuple[str, str]], bool]
) -> dict[tuple[str, tuple[str, str]], float]:
    """Return Holm's p of the chosen pairs over all columns but the average, which is a family of its own."""
    corrected: dict[tuple[str, tuple[str, str]], float] = {}
    for family in ([name for name in pairs if name != "average"], ["average"]):
        keys = [(column, pair) for column in family for pair in pairs[column] if keep(pair)]
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
            difference = Estimate(
                value=-difference.value,
                low=-difference.high,
                high=-difference.low,
                p=difference.p,
                df=difference.df,
            )
        found[other][column] = Estimate(**{**difference.__dict__, "p": p})
    return found


def _mark(
    plain: Mapping[str, Mapping[str, Cell]], average: Mapping[str, Cell], pairs: Pairs, view: View
) -> dict[str, dict[str, Cell]]:
    """Return the cells by column and method, with best and second marked where tests support it."""
    names = list(plain)
    corrected = _corrected(pairs, lambda pair: True)
    sign = -1.0 if view.metric in ERRORS else 1.0
    marked = {}
    for column in (*view.benchmarks, "average"):
        cells = {name: average[name] if column == "average" else plain[name][column] for name in names}
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
            name: Cell(**{**cell.__dict__, "best": bool(best[place]), "second": bool(second_best[place])})
            for place, (name, cell) in enumerate(cells.items())
        }
    return marked


def find_modules(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Return what the configs of runs differ in: the name of a module -> its level in every run.

    Keys that split the runs alike cannot be told apart: they are one module, named by its nodes, such as
    ``perception`` or ``perception + uncertainty``. A level is the value as text, of a module of several keys
    that of its first; ``none`` stands for what is switched off: none, 0, false, or no such key.
    """
    levels = {
        key: [_level(value) for value in values]
        for key, values in changed_keys([record.config for record in records]).items()
        if not key.startswith("dataset.")
    }
    groups: dict[tuple[int, ...], list[str]] = {}
    for key, values in levels.items():
        first_seen = {value: place for place, value in reversed(list(enumerate(values)))}
        parts = tuple(first_seen[value] for value in values)
        if len(set(parts)) > 1:
            groups.setdefault(parts, []).append(key)
    found = {}
    for keys in groups.values():
        named = next((key for key in keys if key.endswith((".form", ".name"))), keys[0])
        nodes = {key.partition(".")[0] for key in keys}
        name = " + ".join(sorted(nodes)) if len(keys) > 1 else named
        found[name if name not in found else named] = levels[named]
    return found


def _level(value: Any) -> str:
    return OFF if value in (None, 0, False, "", "none", "[]", "{}") else str(value)


def compare_modules(
    runs: Runs,
    view: View,
    scored: Mapping[str, Scored],
    *,
    interactions: bool = True,
    confidence: float = 0.95,
) -> tuple[Effects, list[str]] | None:
    """Return the effects of the modules that the runs differ in, and each as a sentence.

    Over the benchmarks that all methods have, and the runs that have all of these. None where no two runs
    differ, or none can be scored.
    """
    methods = [{record.method for record in found.records} for found in scored.values()]
    names = [name for name in view.benchmarks if name in scored]
    names = [name for name in names if {r.method for r in scored[name].records} == set().union(*methods)]
    if not names:
        return None
    records, scores = _aligned([scored[name] for name in names])
    levels = find_modules(records)
    if not levels:
        return None
    model = [
        Run(seed=record.seed, levels={name: values[place] for name, values in levels.items()})
        for place, record in enumerate(records)
    ]
    references = {name: OFF if OFF in values else values[0] for name, values in levels.items()}

    def effects(benchmarks: Sequence[BenchmarkScores]) -> Effects:
        return module_effects(
            model, benchmarks, references=references, interactions=interactions, confidence=confidence
        )

    whole = effects(scores)
    single = {name: effects([score]) for name, score in zip(names, scores, strict=True)}
    p = holm([effect.estimate.p for found in single.values() for effect in found.effects])
    by_effect: dict[str, dict[str, Estimate]] = {}
    places = iter(p)
    for name, found in single.items():
        for effect in found.effects:
            by_effect.setdefault(effect.name, {})[name] = Estimate(
                **{**effect.estimate.__dict__, "p": next(places)}
            )
    sentences = [
        effect_sentence(effect, metric=view.metric.upper(), level=0.05, by_benchmark=by_effect[effect.name])
        for effect in whole.effects
    ]
    return whole, sentences
