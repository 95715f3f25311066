"""What a run measures of its policy: the validation part as it goes, the benchmarks before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from qhk.evaluation.results import (
    ResultRow,
    Results,
    Stage,
    headline_value,
    read_results,
    scalar_metrics,
    summarise,
    update_results,
)
from qhk.policy.load import Policy
from qhk.settings import Readout, Settings, TaskSettings, task_views
from qhk.tracking.recorder import MetricStage
from qhk.training.distributed import Work
from qhk.training.evaluate import evaluate_benchmarks, run_samplers, validate
from qhk.training.inputs import ExampleReader, build_readers
from qhk.training.run import Run
from qhk.types import Completion, Example


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validation part's row by task."""

    rows: Mapping[str, ResultRow]

    @property
    def value(self) -> float:
        """What a checkpoint is selected by: the mean over tasks of each one's headline metric."""
        return math.fsum(headline_value(row) for row in self.rows.values()) / len(self.rows)

    @property
    def text(self) -> str:
        """The headline figures, for a reader."""
        parts = []
        for task, row in self.rows.items():
            names = ("accuracy",) if "accuracy" in row.metrics else ("srcc", "plcc")
            figures = "  ".join(
                f"{name.upper() if name != 'accuracy' else name} {row.metrics[name].value:.3f}"
                for name in names
            )
            parts.append(figures if len(self.rows) == 1 else f"{task}: {figures}")
        return "   ".join(parts)

    def metrics(self, *, prefix: str) -> dict[str, float]:
        """All rows' figures under metric names that begin with ``prefix`` and, of several tasks, the task."""
        if len(self.rows) == 1:
            return row_metrics(next(iter(self.rows.values())), prefix=prefix)
        return {
            name: value
            for task, row in self.rows.items()
            for name, value in row_metrics(row, prefix=f"{prefix}/{task}").items()
        }


def row_metrics(row: ResultRow, *, prefix: str) -> dict[str, float]:
    """The row's figures under metric names that begin with ``prefix``."""
    return {f"{prefix}/{name}": value for name, value in scalar_metrics(row).items()}


def validate_run(
    run: Run, policy: Policy, readers: Mapping[str, ExampleReader], *, step: int
) -> Validation | None:
    """The validation part's rows, alike on every process; None where the run keeps no validation part."""
    settings, tasks = run.settings, _tasks(run.settings)
    if not any(run.data.validation.values()):
        return None

    def lead(work: Work) -> dict[str, ResultRow]:
        return {
            task: validate(
                partial(_ask, work, ("validation", task)),
                examples,
                batch_images=settings.evaluation.batch_images,
                task=tasks[task],
                step=step,
                seed=settings.seed,
            )
            for task, examples in run.data.validation.items()
            if examples
        }

    readouts = {"validation": settings.training.validation_readout}
    return Validation(rows=run.processes.spread(_sampling(run, policy, readers, readouts), lead))


def report_benchmarks(run: Run, policy: Policy, *, step: int, stage: Stage) -> None:
    """Evaluates the benchmarks, on all processes, and adds their rows to ``results.json``."""
    settings, tasks = run.settings, _tasks(run.settings)

    def lead(work: Work) -> list[ResultRow]:
        with run.display.task(f"evaluating {stage.value}") as progress:

            def watched(done: int, total: int) -> None:
                progress(done, total)
                run.stop_here(f"the evaluation after step {step} goes on from image {done} of {total}")

            return evaluate_benchmarks(
                {
                    (readout, task): partial(_ask, work, (readout, task))
                    for readout in settings.evaluation.readouts
                    for task in tasks
                },
                run.data.benchmarks,
                settings=settings.evaluation,
                tasks=tasks,
                seed=settings.seed,
                directory=run.directory.path,
                step=step,
                stage=stage,
                progress=watched,
            )

    readers = build_readers(settings, policy)
    rows = run.processes.spread(_sampling(run, policy, readers, settings.evaluation.readouts), lead)
    headline = [row for row in rows if row.readout == settings.evaluation.headline]
    if headline:
        _record_rows(run, headline, step=step)
    write_run_results(run, rows)


def write_run_results(run: Run, rows: Sequence[ResultRow]) -> Results:
    """The run's results with ``rows`` and the wall times so far added, also on disk."""
    if run.processes.is_main:
        update_results(
            run.directory.results,
            seed=run.settings.seed,
            run_id=run.directory.run_id,
            wall_times=run.wall_s,
            rows=rows,
        )
    run.processes.wait()
    return read_results(run.directory.results)


def _tasks(settings: Settings) -> dict[str, TaskSettings]:
    return {task: view.task for task, view in task_views(settings).items()}


def _ask(work: Work, asked: tuple[str, str], examples: Sequence[Example]) -> list[list[Completion]]:
    return work(asked, list(examples))


def _sampling(
    run: Run, policy: Policy, readers: Mapping[str, ExampleReader], readouts: Mapping[str, Readout]
) -> Work:
    """A function (read-out and task, examples) -> completions of each."""
    settings = run.settings
    samplers = run_samplers(policy, readers, readouts, settings)
    return lambda asked, examples: [list(completions) for completions in samplers[asked](examples)]


def _record_rows(run: Run, rows: Sequence[ResultRow], *, step: int) -> None:
    means = summarise(rows, min_parsed_fraction=run.settings.evaluation.min_parsed_fraction).means
    metrics = {f"eval/mean/{name}": value for name, value in means.items()}
    for row in rows:
        metrics |= row_metrics(row, prefix=f"eval/{row.benchmark}")
    run.record(step=step, stage=MetricStage.EVAL, metrics=metrics)
    run.directory.report(srcc=means.get("srcc"))
