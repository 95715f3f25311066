from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from qhk.settings.learning import ColdStartSettings
from qhk.training.cold_start import imperfect_answer, noisy_label
from qhk.types import Example
from tests.tasks.builders import task_of

CONF = Path(__file__).parents[2] / "conf" / "cold_start" / "sft.yaml"


def settings(**changes: float) -> ColdStartSettings:
    return ColdStartSettings(**{**yaml.safe_load(CONF.read_text()), **changes})


SCORE = task_of("score", "strict")


def example(place: int, **labels: str) -> Example:
    mos = None if labels else 3.0
    return Example(
        id=str(place),
        dataset="s",
        image=Path("a"),
        mos=mos,
        mos_native=mos,
        higher_is_better=True,
        labels=labels,
    )


def test_scores_are_noisy_and_fixed_per_example() -> None:
    chosen = settings(label_noise=0.5)
    drawn = [imperfect_answer(example(place), chosen, task=SCORE, seed=1).numbers[0] for place in range(400)]
    assert sum(drawn) / 400 == pytest.approx(3.0, abs=0.1) and min(drawn) < 2.2 and max(drawn) > 3.8
    again = imperfect_answer(example(7), chosen, task=SCORE, seed=1).numbers
    assert again == (drawn[7],) == (noisy_label(3.0, noise=0.5, seed=1, example_id="7", aspect=0),)
    exact = imperfect_answer(example(7), settings(label_noise=0.0), task=SCORE, seed=1)
    assert exact.numbers == (3.0,)


def test_each_sub_score_has_its_own_noise() -> None:
    scores = imperfect_answer(example(0), settings(), task=task_of("multi_aspect", "lines"), seed=0).numbers
    assert len(set(scores)) == 5


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_the_asked_share_of_words_is_wrong(share: float) -> None:
    truth = {"distortion_class": "blur", "severity": "slight"}
    chosen = settings(wrong_labels=share)
    taught = [
        imperfect_answer(example(place, **truth), chosen, task=task_of("degradation", "json"), seed=0).labels
        for place in range(1000)
    ]
    wrong = [words for words in taught if words != truth]
    assert len(wrong) / 1000 == pytest.approx(share, abs=0.05)
    if share == 1.0:
        counts = Counter(tuple(words.values()) for words in wrong)
        assert len(counts) == 20 and max(counts.values()) < 2.5 * min(counts.values())


def test_similar_is_never_taught_where_it_is_not_on_offer() -> None:
    taught = {
        imperfect_answer(
            example(place, choice="Image A"),
            settings(wrong_labels=1.0),
            task=task_of("comparison", "choice_of_two"),
            seed=0,
        ).labels["choice"]
        for place in range(50)
    }
    assert taught == {"Image B"}
