"""What is measured of a policy: the validation part as a run goes, benchmarks before and after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from qhk.data.seeds import stream_generator
from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.predict import Predictor, Readings, Sampler, sampled
from qhk.evaluation.readouts import ReadoutSampler, applicable
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
from qhk.settings.base import Readout
from qhk.settings.root import Settings
from qhk.settings.views import build_tasks
from qhk.tasks import Task
from qhk.tracking.recorder import MetricSection
from qhk.training.benchmarks import evaluate_benchmarks, measure_perturbed, sets_seen
from qhk.training.distributed import Work
from qhk.training.inputs import ExampleReader, build_readers
from qhk.training.run import Run
from qhk.training.sharding import gathered
from qhk.types import Example


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

    readouts = {"validation": {"validation": settings.training.validation_readout}}
    with gathered(policy.model):
        return Validation(rows=run.processes.spread(_sampling(run, policy, readers, readouts), lead))


def report_benchmarks(run: Run, policy: Policy, *, step: int, moment: Moment) -> None:
    """Evaluate the benchmarks, on all processes, and add their rows to ``results.json``."""
    settings, tasks = run.settings, build_tasks(run.settings)

    def lead(work: Work) -> tuple[list[ResultRow], list[PerturbedRow]]:
        with run.display.task(f"evaluating {moment.value}") as progress:

            def report_progress(done: int, total: int) -> None:
                progress(done, total)
                run.stop_here(f"the evaluation after step {step} goes on from image {done} of {total}")

            rows = evaluate_benchmarks(
                _predictors(work, "benchmarks", tasks),
                run.data.benchmarks,
                settings=settings.evaluation,
                tasks=tasks,
                readouts=readout_names(readouts, tasks),
                seen=sets_seen(settings, settings.dataset),
                seed=settings.seed,
                directory=run.directory.path,
                step=step,
                moment=moment,
                progress=report_progress,
            )
            return rows, measure_perturbed(
                _predictors(work, "perturbed", tasks),
                run.data.benchmarks,
                settings=settings,
                tasks=tasks,
                readout=settings.evaluation.headline,
                directory=run.directory.path,
                step=step,
                moment=moment,
                progress=report_progress,
            )

    readers, readouts = build_readers(settings, policy), settings.evaluation.readouts
    headline_alone = {settings.evaluation.headline: readouts[settings.evaluation.headline]}
    asked = {"benchmarks": readouts, "perturbed": headline_alone}
    with gathered(policy.model):
        rows, perturbed = run.processes.spread(_sampling(run, policy, readers, asked), lead)
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


def _ask(work: Work, asked: tuple[str, str], examples: Sequence[Example]) -> list[Readings]:
    return work(asked, list(examples))


def _predictors(work: Work, purpose: str, tasks: Mapping[str, Task]) -> dict[str, Predictor]:
    """The predictor of each task, of the read-outs that the purpose has."""
    return {
        name: sampled(partial(_ask, work, (purpose, name)), task, keep_texts=True)
        for name, task in tasks.items()
    }


def _sampling(
    run: Run,
    policy: Policy,
    readers: Mapping[str, ExampleReader],
    readouts: Mapping[str, Mapping[str, Readout]],
) -> Work:
    """A function ((purpose, task), examples) -> completions of each, by read-out; ``readouts`` by purpose."""
    samplers = {
        (purpose, task): sampler
        for purpose, some in readouts.items()
        for task, sampler in run_samplers(policy, readers, some, run.settings).items()
    }
    return lambda asked, examples: list(samplers[asked](examples))


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
    policy: Policy,
    reader: ExampleReader,
    readouts: Mapping[str, Readout],
    *,
    seed: int,
    task: Task,
    decode_batch: int,
) -> Sampler:
    """Return a function from examples to the completions of every read-out.

    Random numbers follow the image (seed, data set, id), not the batch or the step: the same image meets
    the same numbers before and after training, and a resumed evaluation is the same evaluation.
    """
    most = max(readout.num_samples for readout in readouts.values())
    sampler = ReadoutSampler(
        policy,
        readouts,
        task=task,
        decimals=reader.answer_decimals,
        decode_batch=max(decode_batch, most),
    )

    def sample(examples: Sequence[Example]) -> Sequence[Readings]:
        return sampler(
            [reader.prompt(example) for example in examples],
            [
                partial(stream_generator, seed, "evaluation", example.dataset, example.id)
                for example in examples
            ],
        )

    return sample


def run_samplers(
    policy: Policy, readers: Mapping[str, ExampleReader], readouts: Mapping[str, Readout], settings: Settings
) -> dict[str, Sampler]:
    """Return the sampler of each task, for the read-outs that it has."""
    return {
        name: make_sampler(
            policy,
            readers[name],
            applicable(readouts, task),
            seed=settings.seed,
            task=task,
            decode_batch=settings.rollout.decode_batch,
        )
        for name, task in build_tasks(settings).items()
        if applicable(readouts, task)
    }


def readout_names(readouts: Mapping[str, Readout], tasks: Mapping[str, Task]) -> dict[str, list[str]]:
    """Return the names of the read-outs that each task has."""
    return {name: list(applicable(readouts, task)) for name, task in tasks.items()}


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
        for said in predict(examples[start : start + batch_images])
        for prediction in said.values()
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
