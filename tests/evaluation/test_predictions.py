"""Predictions: what one row says, and what a file survives and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.evaluation import predictions
from qhk.evaluation.predictions import Prediction
from qhk.types import Example, ScoreDistribution
from tests.evaluation.builders import completions, example
from tests.tasks.builders import task_of


def made(scores: list[float | None], id_: str = "a", mos: float = 3.0) -> Prediction:
    return predictions.make_prediction(
        example(id_, mos), completions(scores), task=task_of("score", "strict"), keep_texts=False
    )


def test_failures_stay_out_of_the_mean_and_are_counted() -> None:
    prediction = made([2.0, None, 4.0, None])
    assert prediction.score == prediction.clipped == 3.0
    assert prediction.samples == (2.0, None, 4.0, None)
    assert prediction.num_failed == 2


def test_nothing_parsed_has_no_score() -> None:
    prediction = made([None, None])
    assert prediction.score is None and prediction.clipped is None
    assert prediction.out_of_range == 0


def test_each_sample_is_counted_and_clipped_by_itself() -> None:
    prediction = made([95.0, 3.0, -1.0, 5.0])
    assert prediction.score == pytest.approx(25.5)
    # 5 + 3 + 1 + 5
    assert prediction.clipped == pytest.approx(3.5)
    assert prediction.out_of_range == 2


def test_equal_samples_tie_whatever_their_number() -> None:
    scores = {made([3.1] * number).clipped for number in range(1, 33)}
    assert scores == {3.1}


def test_path_names_step_readout_and_benchmark() -> None:
    def path(step: int, *, before: bool) -> Path:
        return predictions.predictions_path(
            Path("run"), step=step, before=before, readout="mean8", benchmark="miniature_koniq"
        )

    assert path(120, before=False) == Path("run/predictions/step_000120/mean8/miniature_koniq.jsonl")
    assert path(120, before=True) == Path("run/predictions/step_000120_before/mean8/miniature_koniq.jsonl")
    assert path(0, before=True) == Path("run/predictions/step_000000/mean8/miniature_koniq.jsonl")


def test_round_trip_with_and_without_texts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "koniq.jsonl"
    kept = predictions.make_prediction(
        example("b"), completions([0.1 + 0.2, None]), task=task_of("score", "strict"), keep_texts=True
    )
    predictions.append_predictions(path, [made([2.5])])
    predictions.append_predictions(path, [kept])
    assert predictions.read_predictions(path) == [made([2.5]), kept]
    first = json.loads(path.read_text().splitlines()[0])
    assert list(first) == ["id", "mos", "score", "clipped", "samples", "out_of_range", "tokens"]


def test_expected_scores_keep_what_they_are_the_means_of(tmp_path: Path) -> None:
    spread = ScoreDistribution(mean=2.5, std=0.5, entropy=0.7, mass=0.9)
    read, unread = completions([2.5, None])
    kept = predictions.make_prediction(
        example("b"),
        [replace(read, distribution=spread), unread],
        task=task_of("score", "strict"),
        keep_texts=False,
    )
    assert (kept.score, kept.num_failed, kept.distributions) == (2.5, 1, (spread, None))
    predictions.append_predictions(tmp_path / "koniq.jsonl", [kept])
    assert predictions.read_predictions(tmp_path / "koniq.jsonl") == [kept]


def resume(path: Path, examples: list[Example], *, batch_images: int) -> dict[str, Prediction]:
    return predictions.resume_predictions({"greedy": path}, examples, batch_images=batch_images)["greedy"]


def test_resume_drops_a_torn_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "koniq.jsonl"
    predictions.append_predictions(path, [made([2.5], "a"), made([3.5], "b")])
    path.write_bytes(path.read_bytes()[:-9])
    done = resume(path, [example("a"), example("b")], batch_images=1)
    assert list(done) == ["a"]
    predictions.append_predictions(path, [made([3.5], "b")])
    assert [row.id for row in predictions.read_predictions(path)] == ["a", "b"]


@pytest.mark.parametrize(("rows", "kept"), [("abcd", "abcd"), ("abc", "ab"), ("a", ""), ("abcde", "abcde")])
def test_a_batch_that_was_cut_off_is_not_resumed_from(tmp_path: Path, rows: str, kept: str) -> None:
    """Five images in batches of two: two, two, one."""
    path = tmp_path / "koniq.jsonl"
    predictions.append_predictions(path, [made([2.5], name) for name in rows])
    done = resume(path, [example(name) for name in "abcde"], batch_images=2)
    assert "".join(done) == kept
    assert "".join(row.id for row in predictions.read_predictions(path)) == kept


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([made([2.0], "z")], "'z', which is not in this evaluation"),
        ([made([2.0], "a", mos=4.0)], "'a' mos 4.0, now 3.0"),
        ([made([2.0], "a"), made([2.0], "a")], "'a' twice"),
    ],
)
def test_file_of_other_data_is_refused(tmp_path: Path, rows: list[Prediction], fault: str) -> None:
    path = tmp_path / "koniq.jsonl"
    predictions.append_predictions(path, rows)
    with pytest.raises(ValueError, match=fault) as caught:
        resume(path, [example("a"), example("b")], batch_images=1)
    assert "koniq.jsonl" in str(caught.value) and "\n" not in str(caught.value)


def test_foreign_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "koniq.jsonl"
    path.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=r"is no prediction \(unknown key step\): remove the file"):
        predictions.read_predictions(path)
