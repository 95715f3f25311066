"""The card beside exported weights says how their numbers were read."""

from __future__ import annotations

import pytest

from qhk.config.training import training_settings
from qhk.report.model_card import model_card
from tests.conftest import repository_catalogue


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("evaluation=default",), "8 answers at temperature 1"),
        (("evaluation=greedy",), "| greedy | one answer at temperature 0"),
        (("evaluation=expected",), "the expected score of one answer at temperature 0"),
    ],
)
def test_a_card_says_which_number_an_answer_counts_for(words: tuple[str, ...], said: str) -> None:
    (settings,) = training_settings(["scale=miniature", *words], [0], repository_catalogue())
    card = model_card(
        settings, run_id="0", step=3, rows=(), validation="validation part: last (step 3) SRCC 0.5"
    )
    assert said in card
    assert "None were measured at this step.\n\nvalidation part: last (step 3) SRCC 0.5" in card
    assert "validation part" not in model_card(settings, run_id="0", step=3, rows=(), validation="")
