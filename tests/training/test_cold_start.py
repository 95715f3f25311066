from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from qhk.settings import ColdStartSettings
from qhk.training.supervised import imperfect_answer, noisy_label
from qhk.types import Example

CONF = Path(__file__).parents[2] / "conf" / "cold_start" / "sft.yaml"


def settings(**changes: float) -> ColdStartSettings:
    return ColdStartSettings(**{**yaml.safe_load(CONF.read_text()), **changes})


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
    drawn = [
        imperfect_answer(example(place), chosen, form="score", rule="strict", seed=1).scores[0]
        for place in range(400)
    ]
    assert sum(drawn) / 400 == pytest.approx(3.0, abs=0.1) and min(drawn) < 2.2 and max(drawn) > 3.8
    again = imperfect_answer(example(7), chosen, form="score", rule="strict", seed=1).scores
    assert again == (drawn[7],) == (noisy_label(3.0, noise=0.5, seed=1, example_id="7", aspect=0),)
    exact = imperfect_answer(example(7), settings(label_noise=0.0), form="score", rule="strict", seed=1)
    assert exact.scores == (3.0,)


def test_each_sub_score_has_its_own_noise() -> None:
    scores = imperfect_answer(example(0), settings(), form="multi_aspect", rule="lines", seed=0).scores
    assert len(set(scores)) == 5


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_the_asked_share_of_words_is_wrong(share: float) -> None:
    truth = {"distortion_class": "blur", "severity": "slight"}
    chosen = settings(wrong_labels=share)
    taught = [
        imperfect_answer(example(place, **truth), chosen, form="degradation", rule="json", seed=0).words
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
            form="comparison",
            rule="choice_of_two",
            seed=0,
        ).words["choice"]
        for place in range(50)
    }
    assert taught == {"Image B"}
