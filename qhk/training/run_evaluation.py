"""What a run measures of its policy: the validation part as it goes, the benchmarks before and after."""

from __future__ import annotations

from collections.abc import Sequence

from qhk.evaluation.results import ResultRow, Results, Stage, scalar_metrics, summarise, update_results
from qhk.policy.load import Policy
from qhk.tracking.recorder import MetricStage
from qhk.training.evaluate import evaluate_benchmarks, make_sampler, validate
from qhk.training.inputs import ExampleReader
from qhk.training.run import Run
from qhk.training.start import build_parser, build_reader


def row_metrics(row: ResultRow, *, prefix: str) -> dict[str, float]:
    """The row's figures under metric names that begin with ``prefix``."""
    return {f"{prefix}/{name}": value for name, value in scalar_metrics(row).items()}


def validate_run(run: Run, policy: Policy, reader: ExampleReader, *, step: int) -> ResultRow | None:
    """The validation part's row; None where the run keeps no validation part."""
    settings = run.settings
    if not run.data.validation:
        return None
    sample = make_sampler(
        policy,
        reader,
        settings.training.validation_readout,
        seed=settings.seed,
        parse=build_parser(settings),
        decode_batch=settings.rollout.decode_batch,
    )
    return validate(
        sample,
        run.data.validation,
        batch_images=settings.evaluation.batch_images,
        task=settings.task,
        step=step,
        seed=settings.seed,
    )


def report_benchmarks(run: Run, policy: Policy, *, step: int, stage: Stage) -> None:
    """Evaluates the benchmarks and adds their rows to ``results.json``; the other processes wait."""
    if run.processes.is_main:
        rows = _evaluate_run(run, policy, step=step, stage=stage)
        headline = [row for row in rows if row.readout == run.settings.evaluation.headline]
        if headline:
            _record_rows(run, headline, step=step)
        write_run_results(run, rows)
    run.processes.wait()


def write_run_results(run: Run, rows: Sequence[ResultRow]) -> Results:
    """The run's results with ``rows`` and the wall times so far added, also on disk."""
    return update_results(
        run.directory.results,
        seed=run.settings.seed,
        run_id=run.directory.run_id,
        wall_times=run.wall_s,
        rows=rows,
    )


def _evaluate_run(run: Run, policy: Policy, *, step: int, stage: Stage) -> list[ResultRow]:
    settings = run.settings
    reader = build_reader(settings, policy)
    samplers = {
        name: make_sampler(
            policy,
            reader,
            readout,
            seed=settings.seed,
            parse=build_parser(settings),
            decode_batch=settings.rollout.decode_batch,
        )
        for name, readout in settings.evaluation.readouts.items()
    }
    with run.display.task(f"evaluating {stage.value}") as progress:
        return evaluate_benchmarks(
            samplers,
            run.data.benchmarks,
            settings=settings.evaluation,
            task=settings.task,
            seed=settings.seed,
            directory=run.directory.path,
            step=step,
            stage=stage,
            progress=progress,
        )


def _record_rows(run: Run, rows: Sequence[ResultRow], *, step: int) -> None:
    means = summarise(rows, min_parsed_fraction=run.settings.evaluation.min_parsed_fraction).means
    metrics = {f"eval/mean/{name}": value for name, value in means.items()}
    for row in rows:
        metrics |= row_metrics(row, prefix=f"eval/{row.benchmark}")
    run.record(step=step, stage=MetricStage.EVAL, metrics=metrics)
