"""The loop over a benchmark: order, resume, progress, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from qhk.evaluation.predict import evaluate_set, sampled
from qhk.evaluation.predictions import Prediction, read_predictions
from qhk.types import Completion, Example
from tests.evaluation.builders import completions, example
from tests.tasks.builders import task_of

EXAMPLES = [example(f"i{number}", mos=1 + number / 2) for number in range(7)]


class Sampler:
    """Answers every image with its mos and a failure; dies after ``dies_after`` images."""

    def __init__(self, *, dies_after: int = 100, num_samples: int = 2) -> None:
        self.seen: list[list[str]] = []
        self.left = dies_after
        self.num_samples = num_samples

    def __call__(self, batch: Sequence[Example]) -> list[dict[str, list[Completion]]]:
        self.left -= len(batch)
        if self.left < 0:
            raise KeyboardInterrupt
        self.seen.append([item.id for item in batch])
        return [
            {
                "mean": completions([item.mos, *[None] * (self.num_samples - 1)]),
                "greedy": completions([6.0 - item.opinion]),
            }
            for item in batch
        ]


def others(path: Path) -> Path:
    """Where the second read-out's predictions are beside those of the first."""
    return path.with_name(f"greedy_{path.name}")


def evaluate(path: Path, sampler: Sampler, calls: list[tuple[int, int]] | None = None) -> list[Prediction]:
    """Return the predictions of the first read-out."""
    found = evaluate_set(
        EXAMPLES,
        predict=sampled(sampler, task_of("score", "strict"), keep_texts=True),
        paths={"mean": path, "greedy": others(path)},
        batch_images=3,
        progress=lambda done, total: calls.append((done, total)) if calls is not None else None,
    )
    assert found.predictions["greedy"] == read_predictions(others(path))
    assert [item.score for item in found.predictions["greedy"]] == [6 - item.opinion for item in EXAMPLES]
    assert (found.seconds_per_image >= 0) == bool(sampler.seen), "NaN where nothing was sampled"
    return found.predictions["mean"]


def test_batches_order_and_progress(tmp_path: Path) -> None:
    sampler, calls = Sampler(), []
    found = evaluate(tmp_path / "koniq.jsonl", sampler, calls)
    assert [item.id for item in found] == [item.id for item in EXAMPLES]
    assert [item.clipped for item in found] == [item.mos for item in EXAMPLES]
    assert [len(batch) for batch in sampler.seen] == [3, 3, 1]
    assert calls == [(0, 7), (3, 7), (6, 7), (7, 7)]
    assert read_predictions(tmp_path / "koniq.jsonl") == found
    assert found[0].texts == ("<1.0>", "<None>")


def test_interrupted_evaluation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "koniq.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(path, Sampler(dies_after=4))
    with path.open("a") as file:
        file.write('{"id": "i3", "mo')
    sampler, calls = Sampler(), []
    found = evaluate(path, sampler, calls)
    assert sampler.seen == [["i3", "i4", "i5"], ["i6"]]
    assert calls[0] == (3, 7)
    assert found == evaluate(tmp_path / "whole.jsonl", Sampler())


def test_all_readouts_go_on_from_what_each_of_them_has(tmp_path: Path) -> None:
    """An interruption between the files of a batch leaves one ahead of the other."""
    whole = evaluate(tmp_path / "whole.jsonl", Sampler())
    path = tmp_path / "koniq.jsonl"
    evaluate(path, Sampler())
    lines = others(path).read_text().splitlines(keepends=True)
    others(path).write_text("".join(lines[:3]))
    sampler, calls = Sampler(), []
    assert evaluate(path, sampler, calls) == whole
    assert sampler.seen == [["i3", "i4", "i5"], ["i6"]]
    assert calls == [(3, 7), (6, 7), (7, 7)]
    for file in (path, others(path)):
        assert [item.id for item in read_predictions(file)] == [item.id for item in EXAMPLES]


def test_complete_file_is_not_sampled_again(tmp_path: Path) -> None:
    first = evaluate(tmp_path / "koniq.jsonl", Sampler())
    assert evaluate(tmp_path / "koniq.jsonl", Sampler(dies_after=0)) == first


def test_other_number_of_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "koniq.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(path, Sampler(dies_after=4))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="would mix 2 and 4 samples"):
        evaluate(path, Sampler(num_samples=4))
    assert path.read_bytes() == before


def test_duplicate_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a' occurs twice"):
        evaluate_set(
            [example("a"), example("b"), example("a")],
            predict=sampled(Sampler(), task_of("score", "strict"), keep_texts=False),
            paths={"mean": tmp_path / "koniq.jsonl"},
            batch_images=2,
            progress=lambda done, total: None,
        )
