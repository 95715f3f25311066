from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.answer import parse_answer
from qhk.rewards.answer_text import answer_span


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<answer>3.5</answer>", "3.5"),
        ("<think>a</think><answer> 3.5\n</answer>.", "3.5"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<think><answer>1</answer></think><answer>4</answer>", "4"),
        ("<answer>a <answer>4.25</answer>", "4.25"),
        ("<answer>no number</answer>", "no number"),
    ],
)
def test_the_span_is_the_last_answer_behind_the_reasoning(text: str, found: str) -> None:
    span = answer_span(text)
    assert span is not None and text[slice(*span)] == found


@pytest.mark.parametrize(
    "text", ["", "3.5", "<answer>3.5", "3.5</answer>", "<answer> \n</answer>", "<think>x <answer>3</answer>"]
)
def test_without_a_complete_answer_there_is_no_span(text: str) -> None:
    assert answer_span(text) is None


PIECES = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "3.5", " ", "1", "x", "\n", "é"])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_what_the_parser_reads_stands_in_the_span(text: str) -> None:
    span, score = answer_span(text), parse_answer(text, form="score", rule="strict").score
    if span is None:
        assert score is None
    elif score is not None:
        assert float(text[slice(*span)]) == score
