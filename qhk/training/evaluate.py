"""Evaluating a policy: completions for each image, predictions on disk, rows of the results table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qhk.data.seeds import stream_generator
from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.predict import Sampler, evaluate_set
from qhk.evaluation.predictions import make_prediction, predictions_path
from qhk.evaluation.results import ResultRow, Stage
from qhk.policy.load import Policy
from qhk.rollout.sample import Parser, read_completions, sample_in_batches
from qhk.settings import EvaluationSettings, Readout, Settings, TaskSettings
from qhk.training.display import Progress
from qhk.training.inputs import ExampleReader, build_parsers
from qhk.types import Completion, Example


@dataclass(frozen=True, kw_only=True)
class BenchmarkSet:
    """The images of one benchmark that are reported on, for which task, and how they were chosen."""

    name: str
    task: str
    split: str
    protocol: str
    miniature: bool
    examples: Sequence[Example]


def make_sampler(
    policy: Policy, reader: ExampleReader, readout: Readout, *, seed: int, parse: Parser, decode_batch: int
) -> Sampler:
    """A function from examples to ``num_samples`` completions each.

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
    """The sampler of each read-out and task."""
    parsers = build_parsers(settings)
    return {
        (name, task): make_sampler(
            policy,
            readers[task],
            readout,
            seed=settings.seed,
            parse=parsers[task],
            decode_batch=settings.rollout.decode_batch,
        )
        for name, readout in readouts.items()
        for task in parsers
    }


def evaluate_benchmarks(
    samplers: Mapping[tuple[str, str], Sampler],
    benchmarks: Sequence[BenchmarkSet],
    *,
    settings: EvaluationSettings,
    tasks: Mapping[str, TaskSettings],
    seed: int,
    directory: Path,
    step: int,
    stage: Stage,
    progress: Progress,
) -> list[ResultRow]:
    """One row per benchmark and read-out; predictions below ``directory`` are continued if they are there.

    ``samplers`` go by read-out and task.
    """
    rows: list[ResultRow] = []
    readouts = settings.readouts
    total, before = len(readouts) * sum(len(benchmark.examples) for benchmark in benchmarks), 0
    for readout in readouts:
        for benchmark in benchmarks:
            task = tasks[benchmark.task]
            predictions = evaluate_set(
                benchmark.examples,
                sample=samplers[readout, benchmark.task],
                path=predictions_path(
                    directory,
                    step=step,
                    before=stage is Stage.BEFORE,
                    readout=readout,
                    benchmark=benchmark.name,
                ),
                batch_images=settings.batch_images,
                form=task.form,
                low=task.low,
                high=task.high,
                keep_texts=True,
                progress=_shifted(progress, before, total),
            )
            before += len(benchmark.examples)
            rows.append(
                measure_predictions(
                    predictions,
                    form=task.form,
                    benchmark=benchmark.name,
                    split=benchmark.split,
                    protocol=benchmark.protocol,
                    miniature=benchmark.miniature,
                    step=step,
                    stage=stage,
                    readout=readout,
                    num_resamples=settings.bootstrap,
                    confidence=settings.confidence,
                    seed=seed,
                )
            )
    return rows


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _of: progress(before + done, total)


def validate(
    sample: Sampler,
    examples: Sequence[Example],
    *,
    batch_images: int,
    task: TaskSettings,
    step: int,
    seed: int,
) -> ResultRow:
    """The validation part's row, without predictions on disk or intervals."""
    predictions = []
    for start in range(0, len(examples), batch_images):
        batch = examples[start : start + batch_images]
        for example, completions in zip(batch, sample(batch), strict=True):
            predictions.append(
                make_prediction(
                    example, completions, form=task.form, low=task.low, high=task.high, keep_texts=False
                )
            )
    return measure_predictions(
        predictions,
        form=task.form,
        benchmark="validation",
        split="validation",
        protocol="validation",
        miniature=False,
        step=step,
        stage=Stage.AFTER,
        readout="validation",
        num_resamples=0,
        confidence=0.95,
        seed=seed,
    )
