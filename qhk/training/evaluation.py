"""What is measured of a policy: the validation part as a run goes, benchmarks before and after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from qhk.data.seeds import stream_generator
from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.predict import Sampler, sampled
from qhk.evaluation.results import (
    Moment,
    PerturbedRow,
    ResultRow,
    Results,
    headline_value,
    read_results,
    scalar_metrics,
    summarise,
    update_results,
)
from qhk.policy.load import Policy
from qhk.rollout.sample import Parser, read_completions, sample_in_batches
from qhk.settings.base import Readout
from qhk.settings.root import Settings
from qhk.settings.views import build_tasks
from qhk.tasks import Task
from qhk.tracking.recorder import MetricSection
from qhk.training.benchmarks import evaluate_benchmarks, measure_perturbed, sets_seen
from qhk.training.distributed import Work
from qhk.training.inputs import ExampleReader, build_readers
from qhk.training.run import Run
from qhk.types import Completion, Example


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The validation part's row by task."""

    rows: Mapping[str, ResultRow]

    @property
    def value(self) -> float:
        """Return what a checkpoint is selected by: the mean over tasks of each one's headline metric."""
        return math.fsum(headline_value(row) for row in self.rows.values()) / len(self.rows)

    @property
    def text(self) -> str:
        """Return the headline figures as text."""
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
        """Return all figures by metric names that begin with ``prefix`` and, of several tasks, the task."""
        if len(self.rows) == 1:
            return row_metrics(next(iter(self.rows.values())), prefix=prefix)
        return {
            name: value
            for task, row in self.rows.items()
            for name, value in row_metrics(row, prefix=f"{prefix}/{task}").items()
        }


def row_metrics(row: ResultRow, *, prefix: str) -> dict[str, float]:
    """Return the row's figures under metric names that begin with ``prefix``."""
    return {f"{prefix}/{name}": value for name, value in scalar_metrics(row).items()}


def validate_run(
    run: Run, policy: Policy, readers: Mapping[str, ExampleReader], *, step: int
) -> Validation | None:
    """Return the validation part's rows, alike on every process; None where the run keeps none."""
    settings, tasks = run.settings, build_tasks(run.settings)
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


def report_benchmarks(run: Run, policy: Policy, *, step: int, moment: Moment) -> None:
    """Evaluate the benchmarks, on all processes, and add their rows to ``results.json``."""
    settings, tasks = run.settings, build_tasks(run.settings)

    def lead(work: Work) -> tuple[list[ResultRow], list[PerturbedRow]]:
        with run.display.task(f"evaluating {moment.value}") as progress:

            def report_progress(done: int, total: int) -> None:
                progress(done, total)
                run.stop_here(f"the evaluation after step {step} goes on from image {done} of {total}")

            predictors = {
                (readout, name): sampled(partial(_ask, work, (readout, name)), task, keep_texts=True)
                for readout in settings.evaluation.readouts
                for name, task in tasks.items()
            }
            rows = evaluate_benchmarks(
                predictors,
                run.data.benchmarks,
                settings=settings.evaluation,
                tasks=tasks,
                seen=sets_seen(settings, settings.dataset),
                seed=settings.seed,
                directory=run.directory.path,
                step=step,
                moment=moment,
                progress=report_progress,
            )
            return rows, measure_perturbed(
                predictors,
                run.data.benchmarks,
                settings=settings,
                tasks=tasks,
                readout=settings.evaluation.headline,
                directory=run.directory.path,
                step=step,
                moment=moment,
                progress=report_progress,
            )

    readers = build_readers(settings, policy)
    rows, perturbed = run.processes.spread(
        _sampling(run, policy, readers, settings.evaluation.readouts), lead
    )
    headline = [row for row in rows if row.readout == settings.evaluation.headline]
    if headline:
        _record_rows(run, headline, step=step)
    write_run_results(run, rows, perturbed)


def write_run_results(run: Run, rows: Sequence[ResultRow], perturbed: Sequence[PerturbedRow] = ()) -> Results:
    """Return the run's results with ``rows`` and the wall times so far added, also on disk."""
    if run.processes.is_main:
        update_results(
            run.directory.results,
            seed=run.settings.seed,
            run_id=run.directory.run_id,
            wall_times=run.wall_s,
            rows=rows,
            perturbed=perturbed,
        )
    run.processes.wait()
    return read_results(run.directory.results)


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
    summary = summarise(rows, min_parsed_fraction=run.settings.evaluation.min_parsed_fraction)
    metrics = {f"eval/mean/{name}": value for name, value in summary.means.items()}
    if summary.left_out:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in summary.left_out.items())
        run.display.line(f"eval/mean of step {step} lacks what not every benchmark has: {reasons}")
    for row in rows:
        metrics |= row_metrics(row, prefix=f"eval/{row.benchmark}")
    run.record(step=step, section=MetricSection.EVAL, metrics=metrics)
    run.directory.report(srcc=summary.means.get("srcc"))


# --- shared with the command that evaluates a checkpoint -------------------------------------------------


def make_sampler(
    policy: Policy, reader: ExampleReader, readout: Readout, *, seed: int, parse: Parser, decode_batch: int
) -> Sampler:
    """Return a function from examples to ``num_samples`` completions each.

    Random numbers follow the image (seed, data set, id), not the batch or the step: the same image meets
    the same numbers before and after training, and a resumed evaluation is the same evaluation.
    """

    def sample(examples: Sequence[Example]) -> list[list[Completion]]:
        sampled = sample_in_batches(
            policy,
            [reader.prompt(example) for example in examples],
            [stream_generator(seed, "evaluation", example.dataset, example.id) for example in examples],
            group_size=readout.num_samples,
            max_new_tokens=readout.max_new_tokens,
            temperature=readout.temperature,
            decode_batch=max(decode_batch, readout.num_samples),
        )
        return [read_completions(policy, group, parse) for group in sampled]

    return sample


def run_samplers(
    policy: Policy, readers: Mapping[str, ExampleReader], readouts: Mapping[str, Readout], settings: Settings
) -> dict[tuple[str, str], Sampler]:
    """Return the sampler of each read-out and task."""
    tasks = build_tasks(settings)
    return {
        (name, task): make_sampler(
            policy,
            readers[task],
            readout,
            seed=settings.seed,
            parse=tasks[task].parse,
            decode_batch=settings.rollout.decode_batch,
        )
        for name, readout in readouts.items()
        for task in tasks
    }


def validate(
    sample: Sampler,
    examples: Sequence[Example],
    *,
    batch_images: int,
    task: Task,
    step: int,
    seed: int,
) -> ResultRow:
    """Return the validation part's row, without predictions on disk or intervals."""
    predict = sampled(sample, task, keep_texts=False)
    predictions = [
        prediction
        for start in range(0, len(examples), batch_images)
        for prediction in predict(examples[start : start + batch_images])
    ]
    return measure_predictions(
        predictions,
        task=type(task),
        benchmark="validation",
        split="validation",
        protocol="validation",
        miniature=False,
        step=step,
        moment=Moment.AFTER,
        readout="validation",
        num_resamples=0,
        confidence=0.95,
        seed=seed,
    )
