"""Runs a scorer over a benchmark's images, batch by batch, onto disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from qhk.errors import UserError
from qhk.evaluation.predictions import (
    Prediction,
    append_predictions,
    make_prediction,
    resume_predictions,
)
from qhk.tasks import Task
from qhk.types import Completion, Example

Sampler = Callable[[Sequence[Example]], Sequence[Sequence[Completion]]]
"""Completions for each example, in order. Its random streams must follow the example, not the batch."""

Predictor = Callable[[Sequence[Example]], Sequence[Prediction]]
"""A prediction for each example, in order, whatever the batch."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all), once before the first batch and after every batch."""


def sampled(sample: Sampler, task: Task, *, keep_texts: bool) -> Predictor:
    """Return the predictor that reads a sampler's completions as answers to a task.

    Failed samples are kept as None, never replaced; samples outside the task's scale are counted, then
    clipped (``Prediction.clipped``).
    """

    def predict(examples: Sequence[Example]) -> list[Prediction]:
        completions = sample(examples)
        assert len(completions) == len(examples), "the sampler must answer for every example"
        return [
            make_prediction(example, group, task=task, keep_texts=keep_texts)
            for example, group in zip(examples, completions, strict=True)
        ]

    return predict


def evaluate_set(
    examples: Sequence[Example],
    *,
    predict: Predictor,
    path: Path,
    batch_images: int,
    progress: Progress,
) -> list[Prediction]:
    """Return one prediction per example, in order; a batch is on disk as soon as it is done.

    Images already in ``path`` are not asked about again, but for those of a batch that was cut off: so every
    batch is one of an undisturbed evaluation, and rounds like it. Raises ``UserError`` where ``path`` holds
    predictions for other images or with another number of samples, or an id occurs twice.
    """
    ids = [example.id for example in examples]
    if len(set(ids)) != len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise UserError(f"image {twice!r} occurs twice in one evaluation set: remove the duplicate")
    done = resume_predictions(path, examples, batch_images=batch_images)
    left = [example for example in examples if example.id not in done]
    progress(len(done), len(examples))
    for start in range(0, len(left), batch_images):
        new = predict(left[start : start + batch_images])
        _refuse_mixed_samples([*list(done.values())[-1:], *new], path)
        append_predictions(path, new)
        done.update((prediction.id, prediction) for prediction in new)
        progress(len(done), len(examples))
    return [done[id_] for id_ in ids]


def _refuse_mixed_samples(predictions: Sequence[Prediction], path: Path) -> None:
    numbers = sorted({prediction.num_samples for prediction in predictions})
    if len(numbers) > 1:
        raise UserError(
            f"{path} would mix {numbers[0]} and {numbers[1]} samples per image: "
            "keep num_samples, or remove the file or use fresh=true"
        )
