"""Benchmarks measured, whoever scores their images: a policy, a measure or a table. Free of torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.perturbed import compare_copies, perturbed_copies
from qhk.evaluation.predict import Predictor, Progress, evaluate_set
from qhk.evaluation.predictions import predictions_path, read_predictions
from qhk.evaluation.reliability import measure_reliability
from qhk.evaluation.results import Moment, PerturbedRow, ResultRow
from qhk.settings.data import DatasetSettings
from qhk.settings.parse import CHECKPOINT_CONFIG, read_settings
from qhk.settings.root import EvaluationSettings, Settings
from qhk.settings.views import seen_sets, task_views
from qhk.tasks import Task
from qhk.training.data import BenchmarkSet


def sets_seen(trained: Settings, judged: Mapping[str, DatasetSettings]) -> set[str]:
    """Return which of the ``judged`` sets a run saw, itself or in runs whose checkpoints it began with."""
    found, visited = seen_sets(trained, judged), set[Path]()
    while trained.model.path is not None:
        file = (Path(trained.model.path) / CHECKPOINT_CONFIG).absolute()
        if file in visited or not file.is_file():
            break
        visited.add(file)
        trained = read_settings(file)
        found |= seen_sets(trained, judged)
    return found


def evaluate_benchmarks(
    predictors: Mapping[str, Predictor],
    benchmarks: Sequence[BenchmarkSet],
    *,
    settings: EvaluationSettings,
    tasks: Mapping[str, Task],
    readouts: Mapping[str, Sequence[str]],
    seen: Collection[str],
    seed: int,
    directory: Path,
    step: int,
    moment: Moment,
    progress: Progress,
    on_scale: bool = True,
) -> list[ResultRow]:
    """Return one row per benchmark and read-out; predictions below ``directory`` are continued.

    ``predictors`` and the names of their ``readouts`` go by task: all read-outs of a benchmark come from one
    pass over its images. ``seen`` are the sets that were trained on; ``on_scale``: scores mean what opinions
    mean.
    """
    rows: list[ResultRow] = []
    total, before = sum(len(benchmark.examples) for benchmark in benchmarks), 0
    for benchmark in benchmarks:
        task = benchmark.task
        found = evaluate_set(
            benchmark.examples,
            predict=predictors[task],
            paths={
                readout: predictions_path(
                    directory,
                    step=step,
                    before=moment is Moment.BEFORE,
                    readout=readout,
                    benchmark=benchmark.name,
                )
                for readout in readouts[task]
            },
            batch_images=settings.batch_images,
            progress=_shifted(progress, before, total),
        )
        before += len(benchmark.examples)
        for readout, predictions in found.predictions.items():
            row = measure_predictions(
                predictions,
                task=type(tasks[task]),
                benchmark=benchmark.name,
                split=benchmark.split,
                protocol=benchmark.protocol,
                miniature=benchmark.miniature,
                step=step,
                moment=moment,
                readout=readout,
                num_resamples=settings.bootstrap,
                confidence=settings.confidence,
                seed=seed,
                on_scale=on_scale,
                seconds_per_image=found.seconds_per_image,
            )
            known = measure_reliability(predictions, ratings=benchmark.ratings)
            rows.append(
                replace(row, seen=benchmark.dataset in seen, ratings=benchmark.ratings, reliability=known)
            )
    order = list(dict.fromkeys(name for names in readouts.values() for name in names))
    rows.sort(key=lambda row: order.index(row.readout))
    return rows


def measure_perturbed(
    predictors: Mapping[str, Predictor],
    benchmarks: Sequence[BenchmarkSet],
    *,
    settings: Settings,
    tasks: Mapping[str, Task],
    readout: str,
    directory: Path,
    step: int,
    moment: Moment,
    progress: Progress,
) -> list[PerturbedRow]:
    """Return how the copies that ``settings.perturbation`` asks for are scored, of tasks that have scores.

    The originals' predictions lie below ``directory``, from ``evaluate_benchmarks``; the copies' are written
    beside them, to ``perturbed/``, and continued there.
    """
    rows: list[PerturbedRow] = []
    parts = [
        (
            benchmark,
            perturbed_copies(
                benchmark.examples,
                settings.perturbation,
                strengths=task_views(settings)[benchmark.task].twin.strengths,
                seed=settings.seed,
            ),
        )
        for benchmark in benchmarks
        if tasks[benchmark.task].has_scores and settings.perturbation.num_copies
    ]
    total, before = sum(len(part.examples) for _, copies in parts for part in copies), 0
    for benchmark, copies in parts:
        path = predictions_path(
            directory,
            step=step,
            before=moment is Moment.BEFORE,
            readout=readout,
            benchmark=benchmark.name,
        )
        folder = directory / "perturbed" / path.relative_to(directory / "predictions").with_suffix("")
        said = []
        for part in copies:
            predictions = evaluate_set(
                part.examples,
                predict=predictors[benchmark.task],
                paths={readout: folder / f"{part.name}.jsonl"},
                batch_images=settings.evaluation.batch_images,
                progress=_shifted(progress, before, total),
            )
            before += len(part.examples)
            said.append((part, predictions.predictions[readout]))
        rows += compare_copies(
            {item.id: item for item in read_predictions(path)},
            said,
            benchmark=benchmark.name,
            step=step,
            moment=moment,
            readout=readout,
            settings=settings.evaluation,
            seed=settings.seed,
        )
    return rows


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _of: progress(before + done, total)
