"""Predictions on disk: one JSON line per image, appended as they come, so that an interruption loses nothing.

``predictions/step_000120/<readout>/<benchmark>.jsonl`` (``step_000120_before`` where a later stage of the run
begins) holds one row per image: ``id``, ``mos``,
``score`` (mean of the parsed samples as the model said them), ``clipped`` (mean of the same samples
after each was clipped to the scale), ``samples`` (null = not parsed), ``out_of_range`` (how many
samples lay outside the scale), ``tokens`` of each sample and, where wanted, ``texts``. Where samples are
expected scores, ``distributions`` says what they are the means of. Of a task that is answered in words, a row
holds ``labels`` (the truth) and ``answers`` (one mapping per sample, null = not parsed) instead. Where the
set knows them: ``reference``, ``mos_std``, ``distortion`` and ``level`` of the image.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.files import append_json_lines, drop_torn_line, json_line, read_json_lines, typed, write_atomically
from qhk.tasks import Task
from qhk.types import SCORE_DECIMALS, Completion, Example, ScoreDistribution

THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)

KNOWN = ("reference", "mos_std", "distortion", "level", "raw")
"""What a row says only where it is known: of its image by the set, and a measure's own value."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model said of one image, on the common scale.

    ``score`` and ``clipped`` are None where no sample parsed. ``texts`` is None where texts were not kept.
    ``labels`` are the true labels of a task answered in words, ``answers`` what each sample said; both are
    empty for a task answered in numbers, as ``samples`` is for one in words. ``reference`` names the content
    that several images share, ``mos_std`` is the spread of opinions on the common scale, ``distortion`` and
    ``level`` are what the set says was done to the image; each is None where the set does not know it.
    ``raw`` is the value that a measure or a table gave as it is, None for a policy. ``tokens`` are the
    lengths of the samples, empty in files of earlier versions; ``distributions`` what expected scores are the
    means of, empty for written ones.
    """

    id: str
    mos: float | None
    score: float | None
    clipped: float | None
    samples: tuple[float | None, ...]
    out_of_range: int
    texts: tuple[str, ...] | None
    labels: Mapping[str, str] = field(default_factory=dict)
    answers: tuple[Mapping[str, str] | None, ...] = ()
    reference: str | None = None
    mos_std: float | None = None
    distortion: str | None = None
    level: float | None = None
    raw: float | None = None
    tokens: tuple[int, ...] = ()
    distributions: tuple[ScoreDistribution | None, ...] = ()

    @property
    def num_samples(self) -> int:
        return len(self.samples) + len(self.answers)

    @property
    def num_failed(self) -> int:
        return sum(sample is None for sample in (*self.samples, *self.answers))

    @property
    def choice(self) -> Mapping[str, str] | None:
        """Return the answer of most samples, of equally frequent ones the first; None if none parsed."""
        return most_said(self.answers)


def reasoning(text: str) -> str:
    """Return what a completion says between its first think tags, "" without them."""
    thought = THINK.search(text)
    return thought[1].strip() if thought else ""


def most_said(answers: Sequence[Mapping[str, str] | None]) -> dict[str, str] | None:
    """Return the most frequent readable answer in words (the first of equals), or None without any."""
    said = [tuple(sorted(answer.items())) for answer in answers if answer is not None]
    return dict(Counter(said).most_common(1)[0][0]) if said else None


def predictions_path(run: Path, *, step: int, before: bool, readout: str, benchmark: str) -> Path:
    """Return where the predictions of one benchmark, read-out and step live below the run's folder.

    ``before``: asked as training from this step on asks. Behind step 0 that is told apart, since what was
    trained up to it may have asked the same benchmark otherwise.
    """
    name = f"step_{step:06d}" + ("_before" if before and step else "")
    return run / "predictions" / name / readout / f"{benchmark}.jsonl"


@dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """Where the predictions of one benchmark, step and read-out lie; ``before``: as a later stage began."""

    path: Path
    step: int
    before: bool
    readout: str
    benchmark: str


def prediction_files(directory: Path) -> list[PredictionFile]:
    """Return the files of predictions below a run, by step, read-out and benchmark."""
    found = []
    for path in sorted(directory.glob("predictions/step_*/*/*.jsonl")):
        name = path.parts[-3].removeprefix("step_")
        found.append(
            PredictionFile(
                path=path,
                step=int(name.removesuffix("_before")),
                before=name.endswith("_before"),
                readout=path.parts[-2],
                benchmark=path.stem,
            )
        )
    return found


def make_prediction(
    example: Example,
    completions: Sequence[Completion],
    *,
    task: Task,
    keep_texts: bool,
) -> Prediction:
    """Return the prediction for ``example`` from its sampled completions.

    Failures stay None and never enter a mean. Every sample is clipped to the task's scale by itself, so one
    wild answer among eight moves the mean by no more than the scale allows.
    """
    texts = tuple(completion.text for completion in completions) if keep_texts else None
    distributions = tuple(completion.distribution for completion in completions)
    known = {
        "tokens": tuple(completion.num_tokens for completion in completions),
        "distributions": distributions if any(distributions) else (),
        **_known(example),
    }
    if not task.has_scores:
        return Prediction(
            id=example.id,
            mos=None,
            score=None,
            clipped=None,
            samples=(),
            out_of_range=0,
            texts=texts,
            labels={name: str(example.labels[name]) for name in task.labels},
            answers=tuple(c.answer.labels if c.answer.parsed else None for c in completions),
            **known,
        )
    samples = tuple(completion.answer.score for completion in completions)
    parsed = [sample for sample in samples if sample is not None]
    return Prediction(
        id=example.id,
        mos=example.mos,
        score=_mean(parsed),
        clipped=_mean([min(max(sample, task.low), task.high) for sample in parsed]),
        samples=samples,
        out_of_range=sum(not task.low <= sample <= task.high for sample in parsed),
        texts=texts,
        **known,
    )


def value_prediction(
    example: Example, raw: float | None, score: float | None, *, clipped: float | None
) -> Prediction:
    """Return the prediction of a scorer that has one value for an image, or None where it has none.

    ``score`` is ``raw`` on the common scale or, of a scorer without a scale, along it: larger is better.
    """
    assert (raw is None) == (score is None) == (clipped is None)
    return Prediction(
        id=example.id,
        mos=example.mos,
        score=None if score is None else round(score, SCORE_DECIMALS),
        clipped=None if clipped is None else round(clipped, SCORE_DECIMALS),
        samples=(None if score is None else round(score, SCORE_DECIMALS),),
        out_of_range=int(score != clipped),
        texts=None,
        raw=raw,
        **_known(example),
    )


def _known(example: Example) -> dict[str, Any]:
    """Return what the set knows of an image."""
    distortion, level = example.labels.get("distortion"), example.labels.get("level")
    return {
        "reference": example.reference,
        "mos_std": example.mos_std,
        "distortion": None if distortion is None else str(distortion),
        "level": None if level is None else float(level),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(math.fsum(values) / len(values), SCORE_DECIMALS) if values else None


def append_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Append rows to the file and sync it."""
    append_json_lines(path, [_as_row(prediction) for prediction in predictions])


def read_predictions(path: Path) -> list[Prediction]:
    """Return the predictions in the file, in the order written; empty where it does not exist.

    A torn last line is left out. Raises ``UserError`` naming the file on a row that is not a prediction.
    """
    return [_from_row(row, path) for row in read_json_lines(path)]


def resume_predictions(
    paths: Mapping[str, Path], examples: Sequence[Example], *, batch_images: int
) -> dict[str, dict[str, Prediction]]:
    """Return, by read-out and id, what an interrupted evaluation of the same examples left in ``paths``.

    All read-outs have the same images: what one of them lacks, and a batch that is not whole, is cut off the
    files, so that appending may go on. Raises ``UserError`` where a file holds an image that is not among
    ``examples``, another mos for one, or one image twice.
    """
    done = {readout: _read_known(path, examples) for readout, path in paths.items()}
    common = set.intersection(*(set(found) for found in done.values()))
    whole = len(common) if len(common) == len(examples) else len(common) // batch_images * batch_images
    kept = set(itertools.islice((id_ for id_ in next(iter(done.values())) if id_ in common), whole))
    for readout, found in done.items():
        if kept != set(found):
            done[readout] = {id_: prediction for id_, prediction in found.items() if id_ in kept}
            rows = [json_line(_as_row(prediction)) for prediction in done[readout].values()]
            write_atomically(paths[readout], "".join(rows))
    return done


def _read_known(path: Path, examples: Sequence[Example]) -> dict[str, Prediction]:
    """Return the predictions in ``path`` by id; raises ``UserError`` where they are of other examples."""
    drop_torn_line(path)
    known = {example.id: example for example in examples}
    done: dict[str, Prediction] = {}
    for prediction in read_predictions(path):
        if prediction.id not in known:
            fault = f"holds image {prediction.id!r}, which is not in this evaluation"
        elif not prediction.labels and prediction.mos != known[prediction.id].mos:
            fault = f"gives image {prediction.id!r} mos {prediction.mos}, now {known[prediction.id].mos}"
        elif any(known[prediction.id].labels.get(name) != label for name, label in prediction.labels.items()):
            fault = f"gives image {prediction.id!r} labels {dict(prediction.labels)}, now others"
        elif prediction.id in done:
            fault = f"holds image {prediction.id!r} twice"
        else:
            done[prediction.id] = prediction
            continue
        raise UserError(f"{path} {fault}: it belongs to other data; remove the file or use fresh=true")
    return done


def _as_row(prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": prediction.id,
        "mos": prediction.mos,
        "score": prediction.score,
        "clipped": prediction.clipped,
        "samples": list(prediction.samples),
        "out_of_range": prediction.out_of_range,
    }
    if prediction.labels:
        row = {
            "id": prediction.id,
            "labels": dict(prediction.labels),
            "answers": [None if answer is None else dict(answer) for answer in prediction.answers],
        }
    row.update((name, value) for name in KNOWN if (value := prediction.__dict__[name]) is not None)
    if prediction.tokens:
        row["tokens"] = list(prediction.tokens)
    if prediction.distributions:
        row["distributions"] = [each and asdict(each) for each in prediction.distributions]
    if prediction.texts is not None:
        row["texts"] = list(prediction.texts)
    return row


def _from_row(row: dict[str, Any], path: Path) -> Prediction:
    if "labels" in row:
        row = {"mos": None, "score": None, "clipped": None, "samples": [], "out_of_range": 0, **row}
    try:
        return typed(Prediction, {"texts": None, **row})
    except ValueError as fault:
        raise UserError(f"{path} holds a row that is no prediction ({fault}): remove the file") from None
