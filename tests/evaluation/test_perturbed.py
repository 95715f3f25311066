"""Perturbed copies scored by functions of the picture whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.data.perturb import read_pictures
from qhk.evaluation.perturbed import compare_copies, perturbed_copies
from qhk.evaluation.predictions import Prediction, value_prediction
from qhk.evaluation.results import Moment, PerturbedRow, read_results, update_results
from qhk.evaluation.table import as_text, perturbed_table
from qhk.settings.base import Readout
from qhk.settings.measuring import PerturbationSettings
from qhk.settings.root import EvaluationSettings
from qhk.types import Example
from tests.evaluation.builders import example

STRENGTHS = {"noise": 40.0, "blur": 3.0, "jpeg": 5.0, "darken": 0.5}
SETTINGS = EvaluationSettings(
    readouts={"greedy": Readout(num_samples=1, temperature=0.0, max_new_tokens=8)},
    headline="greedy",
    bootstrap=50,
    confidence=0.95,
    min_parsed_fraction=0.95,
    batch_images=8,
)
Measure = Callable[[np.ndarray], float | None]


def sharpness(pixels: np.ndarray) -> float:
    """Return the mean difference of neighbours, from 0 for an even picture."""
    return float(np.abs(np.diff(pixels, axis=1)).mean())


def brightness(pixels: np.ndarray) -> float:
    return float(pixels.mean())


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number in range(6):
        path = folder / f"{number}.png"
        pixels = np.random.default_rng(number).integers(60, 200, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        found.append(replace(example(path.name), image=path, reference=f"scene {number // 2}"))
    return found


def score(measure: Measure, examples: Sequence[Example]) -> list[Prediction]:
    values = [measure(np.asarray(read_pictures(one)[0]).astype(float)) for one in examples]
    return [
        value_prediction(one, value, value, clipped=value)
        for one, value in zip(examples, values, strict=True)
    ]


def compared(
    examples: Sequence[Example], measure: Measure, *, images: int = 6, **kinds: list[str]
) -> dict[tuple[str, int | None], PerturbedRow]:
    asked = {"degradations": [], "corruptions": [], "replacements": [], **kinds}
    settings = PerturbationSettings(images=images, **asked)  # type: ignore[arg-type]
    copies = perturbed_copies(examples, settings, strengths=STRENGTHS, seed=0)
    rows = compare_copies(
        {item.id: item for item in score(measure, examples)},
        [(part, score(measure, part.examples)) for part in copies],
        benchmark="koniq",
        step=0,
        moment=Moment.AFTER,
        readout="greedy",
        settings=SETTINGS,
        seed=0,
    )
    return {(row.kind, row.strength): row for row in rows}


def test_a_scorer_of_sharpness_sees_blur_and_is_fooled_by_noise(examples: list[Example]) -> None:
    rows = compared(examples, sharpness, degradations=["blur", "noise", "darken"])
    drops = [rows["blur", step].metrics["drop"].value for step in range(1, 6)]
    assert drops[0] > 0 and np.all(np.diff(drops) > 0)
    whole = rows["blur", None]
    assert (whole.n, whole.n_pairs, whole.amount) == (30, 30, None)
    assert whole.metrics["above"].value == 1.0 and whole.metrics["strength_srcc"].value > 0.85
    assert whole.metrics["drop"].value == pytest.approx(np.mean(drops))
    assert rows["noise", 5].metrics["above"].value == 0.0 and rows["noise", 5].metrics["drop"].value < 0
    # Brightness 0.9, 0.8 ... 0.5: differences of neighbours shrink by as much.
    original = np.mean([item.clipped for item in score(sharpness, examples)])
    assert [rows["darken", step].amount for step in range(1, 6)] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert rows["darken", 5].metrics["drop"].value == pytest.approx(original / 2, rel=0.02)


def test_a_scorer_that_does_not_look_gives_the_same_answer_to_anything(examples: list[Example]) -> None:
    rows = compared(examples, lambda pixels: 3.0, degradations=["jpeg"], replacements=["another", "grey"])
    for row in rows.values():
        assert {name: m.value for name, m in row.metrics.items() if name != "strength_srcc"} == {
            "above": 0.5, "drop": 0.0, "unchanged": 1.0,
        }  # fmt: skip
    assert np.isnan(rows["jpeg", None].metrics["strength_srcc"].value)
    looking = compared(examples, brightness, replacements=["another", "grey"])
    assert {row.metrics["unchanged"].value for row in looking.values()} == {0.0}
    assert looking["grey", None].metrics["drop"].value == pytest.approx(
        np.mean([item.clipped for item in score(brightness, examples)]) - 128
    )


def test_another_image_is_of_another_content_and_the_part_is_drawn_by_the_seed(
    examples: list[Example],
) -> None:
    settings = PerturbationSettings(
        images=4, degradations=["noise"], corruptions=[], replacements=["another"]
    )
    copies = perturbed_copies(examples, settings, strengths=STRENGTHS, seed=0)
    assert [(part.kind, part.strength) for part in copies] == [("noise", step) for step in range(1, 6)] + [
        ("another", None)
    ]
    chosen = [one.id for one in copies[0].examples]
    assert len(chosen) == 4 and all([one.id for one in part.examples] == chosen for part in copies)
    contents = {one.image: one.reference for one in examples}
    assert all(contents[one.image] != one.reference for one in copies[-1].examples)
    again = perturbed_copies(examples, settings, strengths=STRENGTHS, seed=0)
    assert [part.examples for part in again] == [part.examples for part in copies]
    (alone,) = perturbed_copies(
        examples[:2], settings.model_copy(update={"degradations": []}), strengths=STRENGTHS, seed=0
    )
    assert not alone.examples  # both show one scene


def test_answers_that_cannot_be_read_are_no_pairs(examples: list[Example]) -> None:
    rows = compared(examples, lambda pixels: None if pixels.std() < 1 else 3.0, replacements=["grey"])
    row = rows["grey", None]
    assert (row.n, row.n_pairs) == (6, 0) and np.isnan(row.metrics["above"].value)


def test_rows_are_kept_in_the_results_and_in_a_table(examples: list[Example], tmp_path: Path) -> None:
    rows = list(compared(examples, sharpness, degradations=["blur"], replacements=["grey"]).values())
    path = tmp_path / "results.json"
    update_results(path, seed=0, run_id="x", wall_times={}, rows=[], perturbed=rows)
    update_results(path, seed=0, run_id="x", wall_times={}, rows=[], perturbed=rows[:1])
    found = read_results(path).perturbed
    assert [row.key for row in found] == [row.key for row in rows]
    assert found[0].metrics["drop"] == rows[0].metrics["drop"]
    text = as_text(perturbed_table(rows))
    assert "blur  30/30  1.000" in text and "grey    6/6" in text
