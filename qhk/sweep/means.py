"""Means of a sweep's runs over the benchmarks that all of them have, then over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from qhk.evaluation.results import Moment, ResultRow, read_results, why_not_counted
from qhk.settings.problems import first_few
from qhk.sweep.manifest import Manifest, SweepRun
from qhk.sweep.states import RunView
from qhk.tracking.status import RunState

METRICS = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "accuracy": "accuracy",
    "distinct_samples": "distinct samples",
    "score_entropy": "score entropy",
}
"""What the table of means shows, where a sweep has it, and its heading."""

RESULTS_FILE = "results.json"

Benchmark = tuple[str, str, str, str, bool, int]
"""What was measured: name, form of the task, part, protocol, whether it is miniature, number of images.

Runs are compared over what is equal in all of this."""


@dataclass(frozen=True, kw_only=True)
class CellMeans:
    """A cell's means over its seeds by metric, before and after training: of ``n`` of ``num_seeds`` runs.

    ``before`` lacks what not all ``n`` runs have of every benchmark; ``stds`` are the unbiased standard
    deviations of ``after``. A metric that the cell's tasks do not have is absent.
    """

    cell: str
    num_seeds: int
    n: int
    before: dict[str, float]
    after: dict[str, float]
    stds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SweepMeans:
    """The means of every cell over the same ``num_used`` of ``num_measured`` benchmarks.

    ``left_out`` has a line for each benchmark and each run that is not in them, with the reason.
    """

    cells: list[CellMeans]
    num_used: int
    num_measured: int
    left_out: list[str]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What a run measured before or after training, and why some of it does not count."""

    rows: Mapping[Benchmark, ResultRow]
    faults: Mapping[Benchmark, str]

    def known(self, name: str) -> list[Benchmark]:
        """Return the benchmarks whose task has the metric."""
        return [key for key, row in self.rows.items() if name in row.metrics]

    def values(self, name: str) -> dict[Benchmark, float]:
        """Return a metric of the benchmarks that count and have a value."""
        found = {
            key: self.rows[key].metrics[name].value for key in self.known(name) if key not in self.faults
        }
        return {key: value for key, value in found.items() if math.isfinite(value)}

    def reason(self, key: Benchmark) -> str:
        """Return why there is no value of a benchmark."""
        return self.faults.get(key, "no value" if key in self.rows else "not evaluated")


@dataclass(frozen=True, kw_only=True)
class _Finished:
    """A run that is done, with what it measured."""

    run: SweepRun
    before: _Rows
    after: _Rows


def sweep_means(manifest: Manifest, views: Sequence[RunView]) -> SweepMeans:
    """Return the means of the runs that are done, by cell.

    Of each metric, over the benchmarks of which every run that has it at all has a value after training: with
    enough answers parsed and a correlation. A run that has no such benchmark is not compared.
    """
    done = [view.run for view in views if view.state is RunState.DONE]
    finished = [_read(manifest, run) for run in done if (run.directory / RESULTS_FILE).exists()]
    compared = [run for run in finished if any(run.after.values(name) for name in METRICS)]
    common: dict[str, list[Benchmark]] = {}
    lacking: dict[Benchmark, dict[str, list[str]]] = {}
    for name in METRICS:
        having = [run for run in compared if run.after.values(name)]
        known = list(dict.fromkeys(key for run in having for key in run.after.known(name)))
        without = {key: [run for run in having if key not in run.after.values(name)] for key in known}
        common[name] = [key for key in known if not without[key]]
        lacking |= {key: _reasons(key, runs) for key, runs in without.items() if runs}
    used = {key for keys in common.values() for key in keys}
    lines = [
        f"{_benchmark_text(key, {*used, *lacking})}: left out of all means: {_reasons_text(reasons)}"
        for key, reasons in lacking.items()
    ]
    if lines:
        lines.append("SRCC beside a state is over all benchmarks of that run")
    lines += [
        f"{run.run.label}: not in the means: {'; '.join(dict.fromkeys(run.after.faults.values()))}"
        for run in finished
        if run not in compared and run.after.faults
    ]
    cells = []
    for cell in manifest.cells:
        runs = [run for run in compared if run.run.cell == cell]
        cells.append(_cell_means(cell, runs, common, num_seeds=sum(view.run.cell == cell for view in views)))
        if any(run.before.rows for run in runs) and cells[-1].before.keys() < cells[-1].after.keys():
            lines.append(f"{cell}: not all means before training, which not every run has of every benchmark")
    return SweepMeans(cells=cells, num_used=len(used), num_measured=len({*used, *lacking}), left_out=lines)


def _read(manifest: Manifest, run: SweepRun) -> _Finished:
    """Return a run's rows of the headline read-out; one in stages measures each set at its stage's end."""
    evaluation = manifest.settings(run).evaluation
    before, after = dict[tuple[str, str], ResultRow](), dict[tuple[str, str], ResultRow]()
    for row in sorted(read_results(run.directory / RESULTS_FILE).rows, key=lambda row: row.step):
        if row.readout == evaluation.headline:
            (before if row.moment is Moment.BEFORE else after)[row.benchmark, row.form] = row
    least = evaluation.min_parsed_fraction
    return _Finished(run=run, before=_judged(before.values(), least), after=_judged(after.values(), least))


def _judged(rows: Iterable[ResultRow], min_parsed_fraction: float) -> _Rows:
    by_key = {(row.benchmark, row.form, row.split, row.protocol, row.miniature, row.n): row for row in rows}
    faults = {
        key: why_not_counted(row, min_parsed_fraction=min_parsed_fraction) for key, row in by_key.items()
    }
    return _Rows(rows=by_key, faults={key: fault for key, fault in faults.items() if fault})


def _reasons(key: Benchmark, runs: Sequence[_Finished]) -> dict[str, list[str]]:
    """Return reason -> the runs that have no value of a benchmark for it."""
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.after.reason(key), []).append(run.run.label)
    return found


def _reasons_text(reasons: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{first_few(labels)}: {reason}" for reason, labels in reasons.items())


def _benchmark_text(key: Benchmark, among: Collection[Benchmark]) -> str:
    """Return a benchmark's name, with what tells it from others of that name."""
    name, form, split, protocol, _, n = key
    if sum(other[0] == name for other in among) == 1:
        return name
    return f"{name} ({n} images of {split}, {protocol}, {form})"


def _cell_means(
    cell: str,
    runs: Sequence[_Finished],
    common: Mapping[str, Sequence[Benchmark]],
    *,
    num_seeds: int,
) -> CellMeans:
    before, after, stds = dict[str, float](), dict[str, float](), dict[str, float]()
    for name, keys in common.items():
        ended = [run.after.values(name) for run in runs]
        if not keys or not ended or not all(ended):
            continue
        means = [_mean([values[key] for key in keys]) for values in ended]
        after[name] = _mean(means)
        stds[name] = statistics.stdev(means) if len(means) > 1 else math.nan
        started = [run.before.values(name) for run in runs]
        if all(key in values for values in started for key in keys):
            before[name] = _mean([_mean([values[key] for key in keys]) for values in started])
    return CellMeans(cell=cell, num_seeds=num_seeds, n=len(runs), before=before, after=after, stds=stds)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
