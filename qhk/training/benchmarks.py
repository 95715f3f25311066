"""Benchmarks measured, whoever scores their images: a policy, a measure or a table. Free of torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.predict import Predictor, Progress, evaluate_set
from qhk.evaluation.predictions import predictions_path
from qhk.evaluation.results import Moment, ResultRow
from qhk.settings import EvaluationSettings
from qhk.tasks import Task
from qhk.training.data import BenchmarkSet


def evaluate_benchmarks(
    predictors: Mapping[tuple[str, str], Predictor],
    benchmarks: Sequence[BenchmarkSet],
    *,
    settings: EvaluationSettings,
    tasks: Mapping[str, Task],
    seen: Collection[str],
    seed: int,
    directory: Path,
    step: int,
    moment: Moment,
    progress: Progress,
    on_scale: bool = True,
) -> list[ResultRow]:
    """Return one row per benchmark and read-out; predictions below ``directory`` are continued.

    ``predictors`` go by read-out and task. ``seen`` are the sets that were trained on; ``on_scale``: scores
    mean what opinions mean.
    """
    rows: list[ResultRow] = []
    readouts = list(dict.fromkeys(readout for readout, _ in predictors))
    total, before = len(readouts) * sum(len(benchmark.examples) for benchmark in benchmarks), 0
    for readout in readouts:
        for benchmark in benchmarks:
            predictions = evaluate_set(
                benchmark.examples,
                predict=predictors[readout, benchmark.task],
                path=predictions_path(
                    directory,
                    step=step,
                    before=moment is Moment.BEFORE,
                    readout=readout,
                    benchmark=benchmark.name,
                ),
                batch_images=settings.batch_images,
                progress=_shifted(progress, before, total),
            )
            before += len(benchmark.examples)
            row = measure_predictions(
                predictions,
                task=type(tasks[benchmark.task]),
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
            )
            rows.append(replace(row, seen=benchmark.dataset in seen))
    return rows


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _of: progress(before + done, total)
