"""``results.json``: every measured cell of a run, one row per benchmark, step, moment and read-out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from qhk.errors import UserError
from qhk.files import read_json, reading, typed, write_atomically
from qhk.tasks import find_form

VALUE = "value"
"""The read-out of scorers that have one value for an image, so that there is nothing to draw or read."""


class Moment(StrEnum):
    """When a cell was measured: before reinforcement, after it, or after the matched supervised control."""

    BEFORE = "before"
    AFTER = "after"
    CONTROL = "control"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A value and its interval; NaN where there is no value, or no interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One cell.

    ``n`` images of which ``n_parsed`` gave at least one readable answer; the metrics are over those.
    ``samples``, ``samples_failed`` and ``samples_out_of_range`` count single completions. ``distinct``
    is the number of different read-out scores. ``plcc_fallback`` is empty where the logistic fit was
    used, else why ``plcc_fitted`` is the raw PLCC; ``plcc_step`` says that the fitted curve is a step,
    so that ``plcc_fitted`` flatters. ``form`` is the task's: one answered in words has accuracies for
    metrics, and ``distinct`` counts its different answers. ``seen``: whether training saw the set, or
    another that is read from the same folder; None where that is not known. ``ratings`` is how many opinions
    an image has, ``reliability`` what ``evaluation.reliability`` says of the predictions. ``figures`` are
    plain numbers beside the metrics (``measure_predictions``), none in files of earlier versions.
    """

    benchmark: str
    form: str
    split: str
    protocol: str
    miniature: bool
    step: int
    moment: Moment
    readout: str
    n: int
    n_parsed: int
    samples: int
    samples_failed: int
    samples_out_of_range: int
    distinct: int
    plcc_fallback: str
    plcc_step: bool = False
    seen: bool | None = None
    ratings: float | None = None
    reliability: Mapping[str, float | None] = field(default_factory=dict)
    metrics: Mapping[str, Measure]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int, Moment, str]:
        """Return what identifies the cell inside one run; a row with the same key replaces it."""
        return self.benchmark, self.step, self.moment, self.readout

    @property
    def parsed_fraction(self) -> float:
        """Return the share of images with a readable answer, in [0, 1]; 0 for no images."""
        return self.n_parsed / self.n if self.n else 0.0


@dataclass(frozen=True, kw_only=True)
class PerturbedRow:
    """Copies of a benchmark's images that were perturbed in one way, against their originals.

    ``family`` is degradation, corruption or replacement; ``strength`` 1 to 5, ``amount`` the kind's own
    number for it; both None where all strengths are taken together. ``n`` copies, ``n_pairs`` of which have a
    readable answer, as their originals have; ``metrics`` over those: above, drop, unchanged
    (``statistics.perturbation``) and, over all strengths, strength_srcc.
    """

    benchmark: str
    step: int
    moment: Moment
    readout: str
    family: str
    kind: str
    strength: int | None
    amount: float | None
    n: int
    n_pairs: int
    metrics: Mapping[str, Measure]

    @property
    def key(self) -> tuple[str, int, Moment, str, str, str, int | None]:
        """Return what identifies the row inside one run; a row with the same key replaces it."""
        cell = (self.benchmark, self.step, self.moment, self.readout)
        return (*cell, self.family, self.kind, self.strength)


@dataclass(frozen=True, kw_only=True)
class Results:
    """All cells of one run. ``wall_times`` maps a phase to its seconds."""

    seed: int
    run_id: str
    wall_times: Mapping[str, float]
    rows: tuple[ResultRow, ...]
    perturbed: tuple[PerturbedRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Means over all benchmarks by metric; ``left_out`` says why a benchmark does not count, by its name."""

    means: Mapping[str, float]
    left_out: Mapping[str, str]


def scalar_metrics(row: ResultRow) -> dict[str, float]:
    """Return the row's metrics and its shares of failures as plain numbers by name, for the tracker."""
    samples = row.samples or math.nan
    return {
        **{name: measure.value for name, measure in row.metrics.items()},
        "distinct": float(row.distinct),
        "parsed_frac": row.parsed_fraction,
        "failed_frac": row.samples_failed / samples,
        "out_of_range_frac": row.samples_out_of_range / samples,
    }


def read_results(path: Path) -> Results:
    """Return the results in ``path``, null read as NaN. Raises ``UserError`` for any other file."""
    with reading(path, "a results file", "move it away"):
        content = read_json(path)
        return Results(
            seed=content["seed"],
            run_id=content["run_id"],
            wall_times=content["wall_times"],
            rows=tuple(_row_from_json(ResultRow, row) for row in content["rows"]),
            perturbed=tuple(_row_from_json(PerturbedRow, row) for row in content.get("perturbed", [])),
        )


def write_results(path: Path, results: Results) -> None:
    """Replace ``path`` atomically by ``results``; NaN and infinities become null, so the JSON is strict."""
    content = {
        "seed": results.seed,
        "run_id": results.run_id,
        "wall_times": dict(results.wall_times),
        "rows": [_row_to_json(row) for row in results.rows],
    }
    if results.perturbed:
        content["perturbed"] = [_row_to_json(row) for row in results.perturbed]
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def update_results(
    path: Path,
    *,
    seed: int,
    run_id: str,
    wall_times: Mapping[str, float],
    rows: Iterable[ResultRow],
    perturbed: Iterable[PerturbedRow] = (),
) -> Results:
    """Add rows and ``wall_times`` to the results in ``path``, atomically, and return all of them.

    A row replaces the one with its key in place; a wall time replaces the one of its name. Raises
    ``UserError`` where the file belongs to another run or seed.
    """
    old = Results(seed=seed, run_id=run_id, wall_times={}, rows=())
    if path.exists():
        old = read_results(path)
        if (old.run_id, old.seed) != (run_id, seed):
            raise UserError(
                f"{path} belongs to run {old.run_id} seed {old.seed}, not {run_id} seed {seed}: "
                "choose another name= or fresh=true"
            )
    merged = {row.key: row for row in (*old.rows, *rows)}
    copies = {row.key: row for row in (*old.perturbed, *perturbed)}
    results = Results(
        seed=seed,
        run_id=run_id,
        wall_times={**old.wall_times, **wall_times},
        rows=tuple(merged.values()),
        perturbed=tuple(copies.values()),
    )
    write_results(path, results)
    return results


def headline_metric(form: str) -> str:
    """Return the metric by which a task of this form selects checkpoints."""
    return find_form(form).headline_metric()


def headline_value(row: ResultRow) -> float:
    """Return the row's value of its headline metric."""
    return row.metrics[headline_metric(row.form)].value


def why_not_counted(row: ResultRow, *, min_parsed_fraction: float) -> str:
    """Return why a cell stays out of the means, in a few words; empty where it counts."""
    if row.parsed_fraction < min_parsed_fraction:
        return f"{row.n_parsed} of {row.n} images parsed (under {min_parsed_fraction:.0%})"
    if math.isnan(headline_value(row)):
        return "no correlation (constant predictions or too few images)"
    return ""


def summarise(rows: Iterable[ResultRow], *, min_parsed_fraction: float) -> Summary:
    """Return means of every metric over the benchmarks in ``rows`` (one row each: one moment, one read-out).

    A benchmark does not count with fewer than ``min_parsed_fraction`` of its images parsed, or without a
    correlation. Where one that has the metric does not count, the mean is NaN: means of a run over steps, and
    of runs with one list of benchmarks, are compared by their name alone, so they must be over one list.
    """
    rows = list(rows)
    assert len({row.benchmark for row in rows}) == len(rows), "one row per benchmark"
    reasons = {row.benchmark: why_not_counted(row, min_parsed_fraction=min_parsed_fraction) for row in rows}
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    having = {name: [row for row in rows if name in row.metrics] for name in names}
    return Summary(
        means={
            name: math.nan
            if any(reasons[row.benchmark] for row in found)
            else _mean([row.metrics[name].value for row in found])
            for name, found in having.items()
        },
        left_out={name: reason for name, reason in reasons.items() if reason},
    )


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _row_to_json(row: ResultRow | PerturbedRow) -> dict[str, Any]:
    metrics = {
        name: {key: value if math.isfinite(value) else None for key, value in asdict(measure).items()}
        for name, measure in row.metrics.items()
    }
    flat = {known.name: row.__dict__[known.name] for known in fields(row)}
    if isinstance(row, ResultRow):
        flat["reliability"] = {name: _finite(value) for name, value in row.reliability.items()}
        flat["figures"] = {name: _finite(value) for name, value in row.figures.items()}
    return {**flat, "moment": row.moment.value, "metrics": metrics}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


Row = TypeVar("Row", ResultRow, PerturbedRow)


def _row_from_json(kind: type[Row], row: Mapping[str, Any]) -> Row:
    metrics = {
        name: Measure(**{key: math.nan if value is None else float(value) for key, value in measure.items()})
        for name, measure in row["metrics"].items()
    }
    # Files of earlier versions have ``stage`` for ``moment``.
    named = {"moment" if key == "stage" else key: value for key, value in row.items()}
    named |= {"figures": {}} if kind is ResultRow else {}
    plain = typed(kind, {**named, "metrics": {}})
    if isinstance(plain, ResultRow):
        figures = row.get("figures", {}).items()
        plain = replace(plain, figures={name: math.nan if x is None else float(x) for name, x in figures})
    return replace(plain, metrics=metrics)
