"""Runs a scorer over a benchmark's images, batch by batch, onto disk: one file for each read-out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

Readings = Mapping[str, Sequence[Completion]]
"""What was sampled for one image, by read-out."""

Sampler = Callable[[Sequence[Example]], Sequence[Readings]]
"""What was sampled for each example, in order. Its random streams must follow the example, not the batch."""

Predictor = Callable[[Sequence[Example]], Sequence[Mapping[str, Prediction]]]
"""The predictions for each example, by read-out, in order, whatever the batch."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all), once before the first batch and after every batch."""


def sampled(sample: Sampler, task: Task, *, keep_texts: bool) -> Predictor:
    """Return the predictor that reads a sampler's completions as answers to a task.

    Failed samples are kept as None, never replaced; samples outside the task's scale are counted, then
    clipped (``Prediction.clipped``).
    """

    def predict(examples: Sequence[Example]) -> list[dict[str, Prediction]]:
        answers = sample(examples)
        assert len(answers) == len(examples), "the sampler must answer for every example"
        return [
            {
                readout: make_prediction(example, completions, task=task, keep_texts=keep_texts)
                for readout, completions in readings.items()
            }
            for example, readings in zip(examples, answers, strict=True)
        ]

    return predict


def read_by(readout: str, predict: Callable[[Sequence[Example]], Sequence[Prediction]]) -> Predictor:
    """Return the predictor of what has one read-out."""
    return lambda examples: [{readout: prediction} for prediction in predict(examples)]


@dataclass(frozen=True, kw_only=True)
class SetPredictions:
    """The predictions of one set by read-out, and the seconds that all read-outs of one image took together.

    NaN seconds where every image had been done before.
    """

    predictions: Mapping[str, list[Prediction]]
    seconds_per_image: float


def evaluate_set(
    examples: Sequence[Example],
    *,
    predict: Predictor,
    paths: Mapping[str, Path],
    batch_images: int,
    progress: Progress,
) -> SetPredictions:
    """Return one prediction per read-out and example, in order; a batch is on disk as soon as it is done.

    Images that the files of all read-outs have (``paths``) are not asked about again, but for those of a
    batch that was cut off: so every batch is one of an undisturbed evaluation, and rounds like it. Raises
    ``UserError`` where a file holds predictions for other images or with another number of samples, or an id
    occurs twice.
    """
    ids = [example.id for example in examples]
    if len(set(ids)) != len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise UserError(f"image {twice!r} occurs twice in one evaluation set: remove the duplicate")
    done = resume_predictions(paths, examples, batch_images=batch_images)
    num_done = len(next(iter(done.values())))
    finished = {id_ for found in done.values() for id_ in found}
    left = [example for example in examples if example.id not in finished]
    seconds = 0.0
    progress(num_done, len(examples))
    for start in range(0, len(left), batch_images):
        batch = left[start : start + batch_images]
        started = time.perf_counter()
        answers = predict(batch)
        seconds += time.perf_counter() - started
        for readout, path in paths.items():
            new = [predictions[readout] for predictions in answers]
            _refuse_mixed_samples([*list(done[readout].values())[-1:], *new], path)
            append_predictions(path, new)
            done[readout].update((prediction.id, prediction) for prediction in new)
        progress(num_done + start + len(batch), len(examples))
    return SetPredictions(
        predictions={readout: [found[id_] for id_ in ids] for readout, found in done.items()},
        seconds_per_image=seconds / len(left) if left else math.nan,
    )


def _refuse_mixed_samples(predictions: Sequence[Prediction], path: Path) -> None:
    numbers = sorted({prediction.num_samples for prediction in predictions})
    if len(numbers) > 1:
        raise UserError(
            f"{path} would mix {numbers[0]} and {numbers[1]} samples per image: "
            "keep num_samples, or remove the file or use fresh=true"
        )
