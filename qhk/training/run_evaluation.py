"""What a run measures of its policy: the validation part as it goes, the benchmarks before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from qhk.evaluation.results import (
    ResultRow,
    Results,
    Stage,
    read_results,
    scalar_metrics,
    summarise,
    update_results,
)
from qhk.policy.load import Policy
from qhk.settings import Readout
from qhk.tracking.recorder import MetricStage
from qhk.training.distributed import Work
from qhk.training.evaluate import evaluate_benchmarks, make_sampler, validate
from qhk.training.inputs import ExampleReader
from qhk.training.run import Run
from qhk.training.start import build_parser, build_reader
from qhk.types import Completion, Example


def row_metrics(row: ResultRow, *, prefix: str) -> dict[str, float]:
    """The row's figures under metric names that begin with ``prefix``."""
    return {f"{prefix}/{name}": value for name, value in scalar_metrics(row).items()}


def validate_run(run: Run, policy: Policy, reader: ExampleReader, *, step: int) -> ResultRow | None:
    """The validation part's row, alike on every process; None where the run keeps no validation part."""
    settings = run.settings
    if not run.data.validation:
        return None

    def lead(work: Work) -> ResultRow:
        return validate(
            lambda examples: work("validation", list(examples)),
            run.data.validation,
            batch_images=settings.evaluation.batch_images,
            task=settings.task,
            step=step,
            seed=settings.seed,
        )

    readouts = {"validation": settings.training.validation_readout}
    return run.processes.spread(_sampling(run, policy, reader, readouts), lead)


def report_benchmarks(run: Run, policy: Policy, *, step: int, stage: Stage) -> None:
    """Evaluates the benchmarks, on all processes, and adds their rows to ``results.json``."""
    settings = run.settings

    def lead(work: Work) -> list[ResultRow]:
        with run.display.task(f"evaluating {stage.value}") as progress:
            return evaluate_benchmarks(
                {name: partial(_ask, work, name) for name in settings.evaluation.readouts},
                run.data.benchmarks,
                settings=settings.evaluation,
                task=settings.task,
                seed=settings.seed,
                directory=run.directory.path,
                step=step,
                stage=stage,
                progress=progress,
            )

    reader = build_reader(settings, policy)
    rows = run.processes.spread(_sampling(run, policy, reader, settings.evaluation.readouts), lead)
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


def _ask(work: Work, readout: str, examples: Sequence[Example]) -> list[list[Completion]]:
    return work(readout, list(examples))


def _sampling(run: Run, policy: Policy, reader: ExampleReader, readouts: Mapping[str, Readout]) -> Work:
    """A function (read-out, examples) -> completions of each."""
    settings = run.settings
    samplers = {
        name: make_sampler(
            policy,
            reader,
            readout,
            seed=settings.seed,
            parse=build_parser(settings),
            decode_batch=settings.rollout.decode_batch,
        )
        for name, readout in readouts.items()
    }
    return lambda name, examples: [list(completions) for completions in samplers[name](examples)]


def _record_rows(run: Run, rows: Sequence[ResultRow], *, step: int) -> None:
    means = summarise(rows, min_parsed_fraction=run.settings.evaluation.min_parsed_fraction).means
    metrics = {f"eval/mean/{name}": value for name, value in means.items()}
    for row in rows:
        metrics |= row_metrics(row, prefix=f"eval/{row.benchmark}")
    run.record(step=step, stage=MetricStage.EVAL, metrics=metrics)
