"""What the page shows, as plain data: tables with tests, effects, curves, predictions, failures, settings.

Everything here ends up as JSON inside one HTML file, so it is cut to what can be looked at: a few hundred
images per benchmark, a hundred points per curve.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from qhk.errors import UserError
from qhk.evaluation.predictions import prediction_files, read_predictions
from qhk.files import read_json, read_json_lines, read_log
from qhk.report.code import code_differences, code_of
from qhk.report.compare import Cell, ComparisonTable, Progress, compare
from qhk.report.images import images_of
from qhk.report.memory import Memory
from qhk.report.modules import compare_modules
from qhk.report.perturbed import perturbed_of
from qhk.report.published import SETS, published_results
from qhk.report.runs import (
    METRICS_FILE,
    RunRecord,
    Runs,
    benchmarks_of,
    changed_keys,
    read_points,
    read_validations,
)
from qhk.report.scoring import read_answers
from qhk.report.views import View, find_row, fits, views, why_missing
from qhk.statistics.comparison import Estimate
from qhk.tracking.names import COLLAPSE_SIGNS
from qhk.tracking.validation import figures

TESTED = ("srcc", "plcc", "accuracy")
"""Metrics with intervals and tests; others are shown as means."""
SHOWN = (
    *TESTED,
    "plcc_fitted",
    "krcc",
    "rmse",
    "mae",
    "score_entropy",
    "distinct_samples",
    "within_image_std",
)
CURVES = (
    "train/reward/total/mean", "validation/srcc", "train/reference/kl", "train/policy/entropy/mean",
    "train/scores/distinct", "train/scores/entropy", "train/completion/tokens/mean",
    "train/uncertainty/weight/mean", "train/perception/kl", "train/optimizer/grad_norm",
    "train/parse/failed_frac", COLLAPSE_SIGNS,
)  # fmt: skip
MAX_POINTS = 120
MAX_CURVE_POINTS = 60_000
"""Points of all curves: with many methods each has fewer."""
HISTOGRAM_STEPS = 8
LOGGED = ("failed", "cancelled", "preempted", "running")
"""States whose log is looked at."""
LOG_LINES, LOG_BYTES = 30, 8192
COMPLETIONS_FILE = "completions.jsonl"
BINS = 20


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report tests and shows. ``reference``: the method that others are held against, or None."""

    title: str
    reference: str | None
    num_resamples: int
    confidence: float
    thumbnails: bool


def gather(runs: Runs, options: ReportOptions, progress: Progress) -> dict[str, Any]:
    """Return the page's data. Numbers that are not finite are None."""
    # What tests rest on: while runs go on, results come seldom and tests take longest.
    rested_on = tuple((record.label, why_missing(record), record.rows) for record in runs.records)
    tables, effects = runs.memory.keep(
        ("tables", options), rested_on, lambda: _tables(runs, options, progress)
    )
    content = {
        "title": options.title,
        "version": version("qhk"),
        "confidence": options.confidence,
        "methods": list(runs.methods),
        "runs": [_run(record, runs.memory) for record in runs.records],
        "changes": _changes(runs),
        "unlike_seeds": _unlike_seeds(runs),
        "codes": code_differences(runs),
        "tables": tables,
        "effects": effects,
        "published": _published(tables),
        "curves": _curves(runs, progress),
        "images": images_of(runs, progress, pictures=options.thumbnails),
        "perturbed": perturbed_of(runs),
        "histograms": _histograms(runs, progress),
        "logs": _logs(runs),
    }
    plain: dict[str, Any] = _finite(content)
    return plain


def _finite(value: Any) -> Any:
    """Return the value with every number that is not finite as None, and floats at six digits."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _tables(
    runs: Runs, options: ReportOptions, progress: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return one table per metric, moment and read-out, and the module effects of those with tests."""
    tables, effects = [], []
    names = benchmarks_of(runs)
    for moment, readout in views(runs):
        read = functools.cache(read_answers)  # the metrics of one read-out come from the same files
        rows = [row for record in runs.records for row in record.rows]
        rows = [row for row in rows if fits(row, moment, readout)]
        measured = dict.fromkeys(metric for row in rows for metric in row.metrics)
        for metric in (*SHOWN, *(name for name in measured if name not in SHOWN)):
            having = [
                name for name in names if any(r.benchmark == name and metric in r.metrics for r in rows)
            ]
            if not having:
                continue
            view = View(metric=metric, moment=moment, readout=readout, benchmarks=tuple(having))
            table, scored = compare(
                runs,
                view,
                reference=options.reference,
                num_resamples=options.num_resamples if metric in TESTED else 0,
                confidence=options.confidence,
                progress=progress,
                read=read,
            )
            figures = _figures(runs, view)
            tables.append({**_table(table), "answers": _answers(runs, view), "figures": figures})
            found = compare_modules(view, scored, confidence=options.confidence)
            if found is not None:
                whole, sentences = found
                effects.append(
                    {
                        "view": _view(view),
                        "sentences": sentences,
                        "residual_df": whole.residual_df,
                        "not_estimable": list(whole.not_estimable),
                        "unpaired_seeds": list(whole.unpaired_seeds),
                        "rows": [
                            {
                                "name": e.name,
                                "modules": list(e.modules),
                                **e.estimate.__dict__,
                                "p_adjusted": e.p_adjusted,
                            }
                            for e in whole.effects
                        ],
                    }
                )
    return tables, effects


def _view(view: View) -> dict[str, Any]:
    return {"metric": view.metric, "moment": view.moment.value, "readout": view.readout}


def _table(table: ComparisonTable) -> dict[str, Any]:
    return {
        "view": _view(table.view),
        "benchmarks": list(table.view.benchmarks),
        "averaged": list(table.averaged),
        "unseen": list(table.unseen_sets),
        "reference": table.reference,
        "num_images": dict(table.num_images),
        "num_references": dict(table.num_references),
        "left_out": {name: dict(reasons) for name, reasons in table.left_out.items()},
        "rows": {
            method: {
                **{name: _cell(cell) for name, cell in table.cells[method].items()},
                "average": _cell(table.average[method]),
                **({"unseen": _cell(table.unseen[method])} if table.unseen else {}),
            }
            for method in table.methods
        },
        "against": {
            method: {name: _estimate(found) for name, found in columns.items()}
            for method, columns in table.against.items()
        },
        "improvement": table.improvement,
        "field": {
            method: {name: found.__dict__ for name, found in columns.items()}
            for method, columns in table.field.items()
        },
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "mean": cell.mean,
        "std": cell.std,
        "low": cell.interval.low,
        "high": cell.interval.high,
        "values": dict(cell.values),
        "missing": dict(cell.missing),
        "best": cell.best,
        "second": cell.second,
    }


def _answers(runs: Runs, view: View) -> dict[str, dict[str, dict[str, int]]]:
    """Return method -> benchmark -> counts over its seeds: images, those read, samples, those not read."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for record in runs.records:
        for name in view.benchmarks:
            row = find_row(record, view, name)
            if row is not None:
                cell = found.setdefault(record.method, {}).setdefault(name, {})
                for count in ("n", "n_parsed", "samples", "samples_failed", "samples_out_of_range"):
                    cell[count] = cell.get(count, 0) + row.__dict__[count]
    return found


def _figures(runs: Runs, view: View) -> dict[str, dict[str, float]]:
    """Return method -> figure beside the metrics -> its mean over the benchmarks and runs that have it."""
    values: dict[str, dict[str, list[float]]] = {}
    for record in runs.records:
        for row in (find_row(record, view, name) for name in view.benchmarks):
            for name, value in ({} if row is None else row.figures).items():
                if math.isfinite(value):
                    values.setdefault(record.method, {}).setdefault(name, []).append(value)
    return {
        method: {name: math.fsum(each) / len(each) for name, each in found.items()}
        for method, found in values.items()
    }


def _estimate(found: Estimate) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high, "p": found.p}


def _run(record: RunRecord, memory: Memory) -> dict[str, Any]:
    provenance = _json(record.directory / "provenance.json")
    return {
        "method": record.method,
        "seed": record.seed,
        "directory": str(record.directory),
        "state": record.state,
        "cause": record.cause or record.fault,
        "warning": record.warning,
        "collapse_steps": _collapse_steps(record, memory),
        "validation": _validations(record, memory),
        "step": record.step,
        "total_steps": record.total_steps,
        "seconds": dict(record.wall_times),
        "code": code_of(record)[1],
        "commit": str(provenance.get("commit", "")),
        "hardware": provenance.get("hardware", {}),
        "accelerators": provenance.get("accelerators", []),
        "packages": {
            name: text
            for name, text in (provenance.get("packages") or {}).items()
            if name in ("torch", "transformers", "qhk")
        },
        "data": provenance.get("data_fingerprints", {}),
        "miniature": any(row.miniature for row in record.rows),
    }


def _unlike_seeds(runs: Runs) -> dict[str, list[str]]:
    """Return the methods whose own runs differ in settings, with the keys: their seeds are no repetitions."""
    found = {
        method: list(changed_keys([record.config for record in records if record.config]))
        for method, records in runs.methods.items()
    }
    return {method: keys for method, keys in found.items() if keys}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def _changes(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return the keys in which methods differ -> each method's value, of its first run with a config."""
    # A method that has not begun says nothing yet; with it, every key would differ.
    configs = {
        method: next(record.config for record in records if record.config)
        for method, records in runs.methods.items()
        if any(record.config for record in records)
    }
    changed = changed_keys(configs.values())
    return {
        key: dict(zip(configs, values, strict=True))
        for key, values in changed.items()
        if not (key.startswith("dataset.") and key.endswith(".root"))
    }


def _published(tables: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for table in tables for name in table["benchmarks"])
    return [result.__dict__ for result in published_results([name for name in names if name in SETS])]


def _curves(runs: Runs, progress: Progress) -> dict[str, dict[str, Any]]:
    """Return metric -> method -> steps, the mean over seeds, and the lowest and highest seed at each step."""
    collected: dict[str, dict[str, dict[int, list[float]]]] = {}
    for place, record in enumerate(runs.records):
        progress("reading curves", place, len(runs.records))
        try:
            points = _points(record, runs.memory)
        except UserError:
            continue
        for (metric, step), value in points.items():
            at = collected.setdefault(metric, {}).setdefault(record.method, {})
            at.setdefault(step, []).append(value)
    most = max(20, min(MAX_POINTS, MAX_CURVE_POINTS // max(1, len(collected) * len(runs.methods))))
    return {
        metric: {method: _thinned(steps, most) for method, steps in collected[metric].items()}
        for metric in CURVES
        if metric in collected
    }


def _points(record: RunRecord, memory: Memory) -> dict[tuple[str, int], float]:
    path = record.directory / METRICS_FILE
    return memory.read(path, _last_points) if path.exists() else {}


def _last_points(path: Path) -> dict[tuple[str, int], float]:
    """Return each drawn metric at each step; of a step that a resumed run says twice, the later value."""
    return {
        (point["metric"], point["step"]): point["value"]
        for point in read_points(path)
        if point["metric"] in CURVES and math.isfinite(point["value"])
    }


def _thinned(steps: Mapping[int, Sequence[float]], most: int) -> dict[str, list[float]]:
    """Return a curve of at most ``most`` points; a point stands for the mean of the steps it covers."""
    order = sorted(steps)
    parts = np.array_split(np.array(order), min(most, len(order)))
    return {
        "step": [float(part[-1]) for part in parts],
        "mean": [float(np.mean([np.mean(steps[step]) for step in part])) for part in parts],
        "low": [float(np.mean([min(steps[step]) for step in part])) for part in parts],
        "high": [float(np.mean([max(steps[step]) for step in part])) for part in parts],
    }


def _histograms(runs: Runs, progress: Progress) -> dict[str, list[dict[str, Any]]]:
    """Return, by method and source, how often each range of scores was said at each step.

    Sources stand apart, since they are other images and other ways to draw: samples of training, and those of
    the benchmarks in each read-out.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for place, (method, records) in enumerate(runs.methods.items()):
        progress("score histograms", place, len(runs.methods))
        counts: dict[str, dict[int, Counter[float]]] = {}
        for record in records:
            for source, step, said in _said_scores(record, runs.memory):
                counts.setdefault(source, {}).setdefault(step, Counter()).update(said)
        found[method] = [{"source": source, "steps": _bars(by_step)} for source, by_step in counts.items()]
    return {method: sources for method, sources in found.items() if sources}


def _bars(by_step: Mapping[int, Counter[float]]) -> list[dict[str, Any]]:
    """Return the histograms of a few steps, the first and the last among them."""
    edges = np.linspace(1, 5, BINS + 1)
    steps = sorted(by_step)
    if len(steps) > HISTOGRAM_STEPS:
        steps = [steps[place] for place in np.linspace(0, len(steps) - 1, HISTOGRAM_STEPS).astype(int)]
    return [
        {
            "step": step,
            "counts": np.histogram(
                np.clip(list(by_step[step]), 1, 5), edges, weights=list(by_step[step].values())
            )[0].tolist(),
            "distinct": len(by_step[step]),
        }
        for step in steps
    ]


def _said_scores(record: RunRecord, memory: Memory) -> Iterator[tuple[str, int, Counter[float]]]:
    """Return source, step and scores of single samples: of benchmarks, and of logged completions."""
    completions = record.directory / COMPLETIONS_FILE
    try:
        for file in prediction_files(record.directory):
            said = memory.read(file.path, _said_in_predictions)
            if said and not file.before:
                yield f"benchmarks, {file.readout}", file.step, said
        if completions.exists():
            for step, said in memory.read(completions, _said_in_completions).items():
                yield "training", step, said
    except UserError:
        return


def _said_in_predictions(path: Path) -> Counter[float]:
    return Counter(sample for item in read_predictions(path) for sample in item.samples if sample is not None)


def _said_in_completions(path: Path) -> dict[int, Counter[float]]:
    found: dict[int, Counter[float]] = {}
    for row in read_json_lines(path):
        said = [score for score in row.get("scores", []) if isinstance(score, int | float)]
        if said:
            found.setdefault(row["step"], Counter()).update(said)
    return found


def _validations(record: RunRecord, memory: Memory) -> dict[str, dict[str, float]]:
    """Return the steps and figures of the validations of a run's last and best checkpoint."""
    return {
        name: {"step": row.step, **figures(row.metrics)}
        for name, row in read_validations(record, memory).items()
    }


def _collapse_steps(record: RunRecord, memory: Memory) -> list[int]:
    """Return the steps at which the run was told of signs of collapse."""
    try:
        points = _points(record, memory)
    except UserError:
        return []
    return sorted(step for (metric, step), value in points.items() if metric == COLLAPSE_SIGNS and value)


def _logs(runs: Runs) -> list[dict[str, Any]]:
    """Return the runs that failed, stopped or go on, with the end of their log; those that failed first."""
    shown = [record for record in runs.records if record.state in LOGGED or record.fault]
    return [
        {
            "run": record.label,
            "method": record.method,
            "state": record.state,
            "cause": record.cause or record.fault,
            "step": record.step,
            "total_steps": record.total_steps,
            "log": _log_end(record.directory, runs.memory),
        }
        for record in sorted(shown, key=lambda record: record.state == "running")
    ]


def _log_end(directory: Path, memory: Memory) -> str:
    """Return the last lines of the log that was written last: a crash may be in the console's alone."""
    found = [path for name in ("run.log", "console.log") if (path := directory / name).exists()]
    if not found:
        return ""
    return "\n".join(memory.read(max(found, key=lambda path: path.stat().st_mtime_ns), _last_lines))


def _last_lines(path: Path) -> list[str]:
    return read_log(path, tail=LOG_BYTES)[-LOG_LINES:]
