"""The runs of a benchmark, scored for tests: on images that all answered, under shared resamples."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qhk.errors import UserError
from qhk.evaluation.predictions import Prediction, predictions_path, read_predictions
from qhk.evaluation.results import Moment, ResultRow
from qhk.report.runs import RunRecord, is_policy
from qhk.report.views import View, counted_row
from qhk.statistics.bootstrap import RESAMPLED, Statistic, cluster_index, resampled_mean
from qhk.statistics.comparison import BenchmarkScores, score_runs
from qhk.statistics.correlation import POINT_METRICS, Array, Scores


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a run said of the images that it has a readable answer to, by the image's id, without the words.

    ``scores`` are clipped to the scale, or 1 for a right answer in words and 0 for a wrong one.
    """

    scores: Mapping[str, float]
    mos: Mapping[str, float | None]
    references: Mapping[str, str | None]


Reader = Callable[[Path], Answers]


def read_answers(path: Path) -> Answers:
    """Return the answers in a file of predictions. Raises ``UserError`` where it holds anything else."""
    items = [item for item in read_predictions(path) if has_answer(item)]
    ids = [sys.intern(item.id) for item in items]  # many runs answer about the same images
    return Answers(
        scores=dict(zip(ids, map(_score, items), strict=True)),
        mos=dict(zip(ids, (item.mos for item in items), strict=True)),
        references=dict(zip(ids, (item.reference for item in items), strict=True)),
    )


def has_answer(item: Prediction) -> bool:
    """Return whether an image has a readable answer."""
    return item.choice is not None if item.labels else item.clipped is not None and item.mos is not None


def _score(item: Prediction) -> float:
    if item.labels:
        return float(dict(item.choice or {}) == dict(item.labels))
    assert item.clipped is not None
    return item.clipped


def answers_path(directory: Path, row: ResultRow) -> Path | None:
    """Return the file of predictions that a row of results was measured on; None where it is gone."""
    for before in (row.moment is Moment.BEFORE, False):
        path = predictions_path(
            directory, step=row.step, before=before, readout=row.readout, benchmark=row.benchmark
        )
        if path.exists():
            return path
    return None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The runs of a benchmark that can be tested, in order, with their scores.

    ``answers (R, n)`` are what they said of the images with ``opinions (n,)``, NaN for answers in words.
    ``left_out`` maps the others that have a value to the reason why it is in no test.
    """

    records: tuple[RunRecord, ...]
    scores: BenchmarkScores
    answers: Array
    opinions: Array
    left_out: Mapping[str, str]


def score_benchmark(
    records: Sequence[RunRecord],
    view: View,
    benchmark: str,
    *,
    num_resamples: int,
    read: Reader = read_answers,
) -> Scored | None:
    """Return the scores of the runs with predictions of a benchmark, over the images that all answered.

    None for a metric that has no test, without predictions, and under three images.
    """
    if view.metric not in STATISTICS:
        return None
    answered, left_out = _comparable(records, view, benchmark, read)
    if not answered:
        return None
    first = answered[0][1]
    common = [id_ for id_ in first.scores if all(id_ in answers.scores for _, answers in answered)]
    if len(common) < 3:
        return None
    point, resampled = STATISTICS[view.metric]
    values = np.array([[answers.scores[id_] for id_ in common] for _, answers in answered])
    truth = np.array([math.nan if (mos := first.mos[id_]) is None else mos for id_ in common])
    references = [
        next((known for _, answers in answered if (known := answers.references[id_]) is not None), None)
        for id_ in common
    ]
    has_value = [not math.isnan(point(run, truth)) for run in values]
    for (record, _), is_there in zip(answered, has_value, strict=True):
        if not is_there:
            left_out[record.label] = "no value over the images that all runs answered"
    if not any(has_value):
        return None
    scores = score_runs(
        values[has_value],
        truth,
        cluster_index(references),
        point=point,
        resampled=resampled,
        num_resamples=num_resamples,
        seed=0,
    )
    kept = tuple(record for (record, _), is_there in zip(answered, has_value, strict=True) if is_there)
    return Scored(records=kept, scores=scores, answers=values[has_value], opinions=truth, left_out=left_out)


def _comparable(
    records: Sequence[RunRecord], view: View, benchmark: str, read: Reader
) -> tuple[list[tuple[RunRecord, Answers]], dict[str, str]]:
    """Return the runs whose answers are about the same images, and the others with a value, with the reason.

    A run of another part of the set, with other opinions of its images, or whose file is gone or cannot be
    read, is left out. What the first run has is what the others are held against.
    """
    answered: list[tuple[RunRecord, Answers]] = []
    left_out: dict[str, str] = {}
    part: tuple[str, str, bool] | None = None
    opinions: dict[str, float | None] = {}
    for record in records:
        row, _ = counted_row(record, view, benchmark)
        if row is None:
            continue
        path = answers_path(record.directory, row)
        try:
            answers = None if path is None else read(path)
        except UserError as error:
            left_out[record.label] = str(error)
            continue
        own = (row.split, row.protocol, row.miniature)
        if answers is None or not answers.scores:
            left_out[record.label] = "no predictions"
        elif part not in (None, own):
            left_out[record.label] = f"split {row.split}, protocol {row.protocol}: another part of the set"
        elif any(opinions.get(id_, mos) != mos for id_, mos in answers.mos.items()):
            left_out[record.label] = "other opinions of the same images"
        else:
            part = own
            opinions.update(answers.mos)
            answered.append((record, answers))
    return answered, left_out


def _mean(values: Scores, _mos: Scores) -> float:
    return float(np.mean(values))


STATISTICS: dict[str, tuple[Callable[[Scores, Scores], float], Statistic]] = {
    **{name: (point, RESAMPLED[name]) for name, point in POINT_METRICS.items()},
    "accuracy": (_mean, resampled_mean),
}
"""The metrics that can be tested: the value over some images, and over resamples of them."""


def aligned(scored: Sequence[Scored]) -> tuple[list[RunRecord], list[BenchmarkScores]]:
    """Return the runs that all benchmarks have, and each benchmark's scores of these in their order."""
    shared = [
        record
        for record in scored[0].records
        if all(any(record is other for other in found.records) for found in scored)
    ]
    scores = []
    for found in scored:
        places = {id(record): place for place, record in enumerate(found.records)}
        rows = [places[id(record)] for record in shared]
        scores.append(_of_rows(found.scores, rows))
    return shared, scores


def of_policies(scored: Mapping[str, Scored]) -> dict[str, Scored]:
    """Return the scores of the policies alone, of the benchmarks that have any."""
    found = {}
    for name, every in scored.items():
        rows = [place for place, record in enumerate(every.records) if is_policy(record)]
        if rows:
            records = tuple(every.records[row] for row in rows)
            found[name] = replace(
                every, records=records, scores=_of_rows(every.scores, rows), answers=every.answers[rows]
            )
    return found


def _of_rows(scores: BenchmarkScores, rows: Sequence[int]) -> BenchmarkScores:
    return replace(scores, value=scores.value[rows], redrawn=scores.redrawn[rows])
