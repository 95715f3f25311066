"""Run directories as pandas tables: what was run, what it measured, what it said of every image.

A *method* is what its runs share but for the seed: the directory ``<study>/<name>``, or a cell of a sweep.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhk.errors import UserError
from qhk.evaluation.predictions import Prediction, prediction_files, read_predictions
from qhk.evaluation.results import Measure, PerturbedRow, ResultRow, read_results
from qhk.files import read_json_lines, read_yaml, reading
from qhk.report.memory import Memory
from qhk.settings.parse import upgrade
from qhk.sweep.manifest import MANIFEST_FILE, read_manifest
from qhk.tracking.recorder import MetricRow
from qhk.tracking.status import STATUS_FILE, judge_status, read_status
from qhk.tracking.validation import last_and_best

if TYPE_CHECKING:
    import pandas as pd

SEED_FOLDER = re.compile(r"seed\d+")
EVALUATIONS = "evaluations"
"""The folder of ``qhk evaluate``, beside the studies."""
CONFIG_FILE, RESULTS_FILE, METRICS_FILE = "config.yaml", "results.json", "metrics.jsonl"

UNLIKE = (
    "seed", "name", "study", "paths", "tracking", "pairs", "fresh", "dry_run", "version", "perturbation",
)  # fmt: skip
"""Parts of a config that say where a run lies, which repetition it is or what else is measured of it, not how
its method works."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run as its directory tells it.

    ``method`` is shared by its repetitions. ``state`` is that of ``status.json``, ``evaluation`` for a folder
    of ``qhk evaluate``, or ``not started`` for a run of a sweep without a directory. ``warning`` is what was
    wrong with it when it was looked at last, as signs of collapse. ``config`` is flat,
    ``uncertainty.alpha`` -> 0.5, without what repetitions differ in. ``fault`` is one line where a file of
    the run could not be read; what could be read is there all the same.
    """

    directory: Path
    method: str
    seed: int
    state: str
    cause: str
    step: int
    total_steps: int | None
    config: Mapping[str, Any]
    rows: tuple[ResultRow, ...]
    wall_times: Mapping[str, float]
    fault: str
    perturbed: tuple[PerturbedRow, ...] = ()
    warning: str = ""

    @property
    def label(self) -> str:
        return f"{self.method}/seed{self.seed}"

    @property
    def study(self) -> str:
        return _own_method(self.directory).partition("/")[0]


class Runs:
    """Runs and their tables; each table is made when it is first asked for.

    ``runs`` (one row per run), ``configs`` (run, key, value), ``results`` (run, benchmark, moment, read-out,
    metric, value, low, high), ``perturbed`` (run, benchmark, kind, strength, metric, value, low, high),
    ``curves`` (run, step, section, metric, value) and ``predictions`` (run, benchmark, step, read-out,
    image). Every table has the columns ``method`` and ``seed``.
    """

    def __init__(self, records: Sequence[RunRecord], memory: Memory | None = None) -> None:
        self.records = tuple(records)
        self.memory = Memory() if memory is None else memory

    def __repr__(self) -> str:
        return f"Runs({len(self.records)} runs of {len(self.methods)} methods)"

    @property
    def methods(self) -> dict[str, list[RunRecord]]:
        """The runs by method, in the order of the records."""
        methods: dict[str, list[RunRecord]] = {}
        for record in self.records:
            methods.setdefault(record.method, []).append(record)
        return methods

    @cached_property
    def runs(self) -> pd.DataFrame:
        return _frame(
            self.records,
            lambda record: [
                {
                    "directory": str(record.directory),
                    "state": record.state,
                    "cause": record.cause or record.fault,
                    "step": record.step,
                    "total_steps": record.total_steps,
                    **{f"seconds/{phase}": seconds for phase, seconds in record.wall_times.items()},
                }
            ],
        )

    @cached_property
    def configs(self) -> pd.DataFrame:
        return _frame(
            self.records,
            lambda record: [{"key": key, "value": value} for key, value in record.config.items()],
        )

    @cached_property
    def results(self) -> pd.DataFrame:
        return _frame(self.records, lambda record: [cell for row in record.rows for cell in _cells(row)])

    @cached_property
    def perturbed(self) -> pd.DataFrame:
        return _frame(
            self.records, lambda record: [cell for row in record.perturbed for cell in _perturbed_cells(row)]
        )

    @cached_property
    def curves(self) -> pd.DataFrame:
        return _frame(self.records, lambda record: list(read_curves(record)))

    @cached_property
    def predictions(self) -> pd.DataFrame:
        return _frame(self.records, _all_predictions)


def _frame(records: Sequence[RunRecord], rows: Any) -> pd.DataFrame:
    """Return the rows of all records, each with its method and seed in front."""
    import pandas as pd

    return pd.DataFrame(
        [{"method": record.method, "seed": record.seed, **row} for record in records for row in rows(record)]
    )


def _cells(row: ResultRow) -> Iterator[dict[str, Any]]:
    """Return one row per metric and figure of a cell."""
    figures = {name: Measure(value=value, low=math.nan, high=math.nan) for name, value in row.figures.items()}
    for metric, measure in {**row.metrics, **figures}.items():
        yield {
            "benchmark": row.benchmark,
            "protocol": row.protocol,
            "split": row.split,
            "miniature": row.miniature,
            "step": row.step,
            "moment": row.moment.value,
            "readout": row.readout,
            "n": row.n,
            "n_parsed": row.n_parsed,
            "metric": metric,
            "value": measure.value,
            "low": measure.low,
            "high": measure.high,
        }


def _perturbed_cells(row: PerturbedRow) -> Iterator[dict[str, Any]]:
    """Return one row per metric of copies that were perturbed in one way."""
    for metric, measure in row.metrics.items():
        yield {
            "benchmark": row.benchmark,
            "step": row.step,
            "moment": row.moment.value,
            "readout": row.readout,
            "family": row.family,
            "kind": row.kind,
            "strength": row.strength,
            "amount": row.amount,
            "n_pairs": row.n_pairs,
            "metric": metric,
            "value": measure.value,
            "low": measure.low,
            "high": measure.high,
        }


def read_curves(record: RunRecord) -> Iterator[dict[str, Any]]:
    """Return what a run measured while it went on: step, section, metric and value, later lines last."""
    yield from read_points(record.directory / METRICS_FILE)


def read_validations(record: RunRecord, memory: Memory) -> dict[str, MetricRow]:
    """Return the validations of a run's last and best checkpoint; none of a record that cannot be read."""
    path = record.directory / METRICS_FILE
    try:
        return memory.read(path, _last_and_best) if path.exists() else {}
    except UserError:
        return {}


def _last_and_best(metrics: Path) -> dict[str, MetricRow]:
    return last_and_best(metrics.parent)


def read_points(path: Path) -> Iterator[dict[str, Any]]:
    """Return the points of a file of metrics in order."""
    for row in read_json_lines(path):
        section = row.get("section", row.get("stage"))  # ``stage`` in files of earlier versions
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                yield {"step": row["step"], "section": section, "metric": name, "value": float(value)}


def _all_predictions(record: RunRecord) -> list[dict[str, Any]]:
    return [
        {
            "benchmark": file.benchmark,
            "step": file.step,
            "readout": file.readout,
            **prediction_row(prediction),
        }
        for file in prediction_files(record.directory)
        for prediction in read_predictions(file.path)
    ]


def prediction_row(prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as the cells of a table."""
    return {
        "id": prediction.id,
        "mos": prediction.mos,
        "score": prediction.score,
        "clipped": prediction.clipped,
        "raw": prediction.raw,
        "samples": prediction.samples,
        "reference": prediction.reference,
        "distortion": prediction.distortion,
        "level": prediction.level,
        "labels": dict(prediction.labels),
        "answers": prediction.answers,
        "texts": prediction.texts,
    }


def read_runs(*paths: Path | str, memory: Memory | None = None) -> Runs:
    """Return the runs that lie in or below ``paths``: runs, studies, a whole outputs folder, or sweeps.

    A run that several paths hold is there once; scorers that are no policy come last. ``memory`` is of an
    earlier call: files that have not changed since are not read again. Raises ``UserError`` for a path
    without any run.
    """
    memory = Memory() if memory is None else memory
    records: dict[Path, RunRecord] = {}
    for path in map(Path, paths):
        found = list(_records(path.resolve(), memory))
        if not found:
            raise UserError(f"{path}: {_why_empty(path)}")
        for record in found:
            key = record.directory.resolve()
            if key not in records or records[key].method == _own_method(record.directory):
                records[key] = record
    named = sorted(_told_apart(list(records.values())), key=lambda record: not is_policy(record))
    return Runs(named, memory)


def _why_empty(path: Path) -> str:
    if not path.exists():
        return "does not exist; give run directories, studies or sweeps, such as outputs/default"
    return "holds no run (a folder seed<k> with config.yaml); give outputs/<study> or outputs/sweeps/<name>"


def _records(path: Path, memory: Memory) -> Iterator[RunRecord]:
    """Return the runs of a path: of the sweep that it is, else of the directories below it."""
    if (path / MANIFEST_FILE).exists():
        manifest = read_manifest(path)
        for run in manifest.runs:
            directory = run.directory if run.directory.is_absolute() else manifest.cwd / run.directory
            yield read_run(directory, memory, method=run.cell, seed=run.seed)
        return
    for config in sorted([*path.glob(CONFIG_FILE), *path.glob(f"**/{CONFIG_FILE}")]):
        folder = config.parent
        if SEED_FOLDER.fullmatch(folder.name) or folder.parent.name == EVALUATIONS:
            yield _named_run(folder, memory)


def _named_run(folder: Path, memory: Memory) -> RunRecord:
    """Return a run under the method that its place names, or the scorer's name where it is no policy's."""
    record = read_run(folder, memory, method=_own_method(folder))
    if is_policy(record):
        return record
    label, path = record.config.get("scorer.label"), record.config.get("scorer.path")
    name = label or (Path(path).stem if path else record.config["scorer.form"])
    return replace(record, method=f"{EVALUATIONS}/{name}")


def is_policy(record: RunRecord) -> bool:
    """Return whether a run's scores are a policy's, not a measure's or a table's."""
    return bool(record.config.get("scorer.form", "policy") == "policy")


def _own_method(directory: Path) -> str:
    """Return the method that a run's place names: ``study/name``."""
    if not SEED_FOLDER.fullmatch(directory.name):
        return f"{directory.parent.name}/{directory.name}"
    return f"{directory.parent.parent.name}/{directory.parent.name}"


def _told_apart(records: list[RunRecord]) -> list[RunRecord]:
    """Return the records with the shortest names of their methods that tell them apart.

    The name alone, else with the study, else the folder: one method has one run of a seed.
    """
    short: dict[str, set[str]] = {}
    for record in records:
        short.setdefault(record.method.rpartition("/")[2], set()).add(record.method)
    named = [
        replace(record, method=name) if len(short[name := record.method.rpartition("/")[2]]) == 1 else record
        for record in records
    ]
    times = Counter((record.method, record.seed) for record in named)
    twice = {method for (method, _), count in times.items() if count > 1}
    return [replace(record, method=_place(record)) if record.method in twice else record for record in named]


def _place(record: RunRecord) -> str:
    """Return a name that no other method has: the folder of its seeds, or an evaluation's own."""
    if SEED_FOLDER.fullmatch(record.directory.name):
        return str(record.directory.parent)
    return f"{record.method} ({record.directory.name})"


def read_run(directory: Path, memory: Memory, *, method: str, seed: int | None = None) -> RunRecord:
    """Return a run as its directory tells it; what cannot be read is said in ``fault`` and left empty."""
    faults: list[str] = []
    config = _config(directory, memory, faults)
    rows: tuple[ResultRow, ...] = ()
    perturbed: tuple[PerturbedRow, ...] = ()
    wall_times: Mapping[str, float] = {}
    if (directory / RESULTS_FILE).exists():
        try:
            results = memory.read(directory / RESULTS_FILE, read_results)
            rows, wall_times, perturbed = results.rows, results.wall_times, results.perturbed
        except UserError as error:
            faults.append(str(error))
    status = None
    try:
        if (directory / STATUS_FILE).exists():
            status = memory.read(directory / STATUS_FILE, read_status)
    except UserError as error:
        faults.append(str(error))
    if status is not None:
        status = judge_status(status)
    known = config.get("seed")
    if seed is None:
        digits = directory.name.removeprefix("seed")
        seed = known if isinstance(known, int) else int(digits) if digits.isdecimal() else 0
    return RunRecord(
        directory=directory,
        method=method,
        seed=seed,
        state=status.state.value if status is not None else "evaluation" if rows else "not started",
        cause="" if status is None else status.cause,
        step=0 if status is None else status.step,
        total_steps=None if status is None else status.total_steps,
        config={key: value for key, value in config.items() if key.partition(".")[0] not in UNLIKE},
        rows=rows,
        wall_times=wall_times,
        fault="; ".join(faults),
        perturbed=perturbed,
        warning="" if status is None else status.warning,
    )


def _config(directory: Path, memory: Memory, faults: list[str]) -> dict[str, Any]:
    """Return a run's settings, flat; empty where it has none yet."""
    path = directory / CONFIG_FILE
    if not path.exists():
        return {}
    try:
        return memory.read(path, _read_config)
    except UserError as fault:
        faults.append(str(fault))
        return {}


def _read_config(path: Path) -> dict[str, Any]:
    with reading(path, "a config", "put it back"):
        return flat(upgrade(read_yaml(path)))


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a config with dotted keys; lists and empty nodes stay values, as JSON text."""
    values: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | Mapping):
            values[f"{prefix}{key}"] = json.dumps(value)
        else:
            values[f"{prefix}{key}"] = value
    return values


def changed_keys(configs: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys in which configs differ, with each one's value in order; None where it has none.

    Without the entries of sets that not all of them use: that ``data`` and ``benchmark`` differ says it.
    """
    configs = list(configs)
    used = [{_set_of(key) for key in config} for config in configs if config]
    shared = set.intersection(*used) if used else set()
    keys = dict.fromkeys(key for config in configs for key in config if _set_of(key) in shared)
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _set_of(key: str) -> str:
    """Return the set whose entry a key stands in; "" for other keys."""
    node, _, below = key.partition(".")
    return below.partition(".")[0] if node == "dataset" else ""


def benchmarks_of(runs: Runs) -> list[str]:
    """Return every benchmark that a run measured, in the order in which they appear."""
    return list(dict.fromkeys(row.benchmark for record in runs.records for row in record.rows))
