from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.answer import parse_answer
from qhk.rewards.format import (
    q_hawkeye_release_format,
    think_answer_format,
    visualquality_r1_release_format,
)
from qhk.types import Completion, Example

Make = Callable[..., Completion]
MakeExample = Callable[[float], Example]


@pytest.mark.parametrize(
    ("text", "ours", "release"),
    [
        ("<think>x</think><answer>3.50</answer>", 1, 1),
        ("<think>x</think><answer>7.9</answer>", 1, 1),
        (" <think>x\ny</think> \n <answer> 3 </answer>\n", 1, 1),
        ("<answer>3.50</answer>", 0, 0),
        ("this image is blurred", 0, 0),
        ("", 0, 0),
        ("<think></think><answer>3</answer>", 0, 0),
        ("<think> </think><answer>3</answer>", 0, 1),
        ("<think>x</think> so <answer>3</answer>", 0, 0),
        ("so <think>x</think><answer>3</answer>", 0, 0),
        ("<think>x</think><answer>3</answer> done", 0, 0),
        ("<think>x</think><answer>3", 0, 0),
        ("<think>x</think><answer>good</answer>", 0, 0),
        ("<think>x</think><answer></answer>", 0, 0),
        ("<think>x</think><answer>1.2.3</answer>", 0, 1),
        ("<think>x</think><answer>-2</answer>", 1, 0),
        ("<think>x <answer>2</answer></think><answer>3</answer>", 0, 1),
        ("<think>x</think><think>y</think><answer>3</answer>", 0, 1),
        ("<answer>3</answer><think>x</think>", 0, 0),
        ("<think>x<answer>3</answer>", 0, 0),
        ("<THINK>x</THINK><answer>3</answer>", 0, 0),
    ],
)
def test_forms(
    make_completion: Make, make_example: MakeExample, text: str, ours: float, release: float
) -> None:
    example = make_example(3.75)
    assert think_answer_format(make_completion(text), example) == ours
    assert q_hawkeye_release_format(make_completion(text, "q_hawkeye_release"), example) == release


FRAGMENTS = ["<think>", "</think>", "<answer>", "</answer>", "3", " ", "x", "."]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join))
def test_our_form_is_what_a_reader_would_call_well_formed(text: str) -> None:
    completion = Completion(
        text=text, answer=parse_answer(text, form="score", rule="strict"), num_tokens=1, truncated=False
    )
    value = think_answer_format(completion, None)  # type: ignore[arg-type]
    assert value in (0.0, 1.0)
    if value:
        body = text.strip()
        thought, answer = body.split("</think>")
        assert thought.startswith("<think>")
        assert thought.removeprefix("<think>").strip()
        assert (
            float(answer.strip().removeprefix("<answer>").removesuffix("</answer>"))
            == completion.answer.score
        )


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join), st.booleans())
def test_the_form_of_visualquality_is_a_whole_match(text: str, wrap: bool) -> None:
    text = f"<think>{text}</answer>" if wrap else text
    completion = Completion(
        text=text, answer=parse_answer(text, form="score", rule="strict"), num_tokens=1, truncated=False
    )
    expected = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL) is not None
    assert visualquality_r1_release_format(completion, None) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think></think> \n<answer></answer>", 1),
        ("<think>x</think><answer>good</answer>", 1),
        (" <think>x</think><answer>3</answer>", 0),
        ("<think>x</think>so<answer>3</answer>", 0),
        ("<think>x</think><answer>3", 0),
    ],
)
def test_the_form_of_visualquality(
    make_completion: Make, make_example: MakeExample, text: str, value: float
) -> None:
    assert visualquality_r1_release_format(make_completion(text), make_example(3.0)) == value


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<answer>", "</answer>", " ", "1"])
def test_long_texts_are_judged_in_linear_time(
    make_completion: Make, make_example: MakeExample, piece: str
) -> None:
    text = "<think>x" + piece * (500_000 // len(piece)) + "</answer>"
    assert think_answer_format(make_completion(text), make_example(3.0)) == 0
    assert q_hawkeye_release_format(make_completion(text, "q_hawkeye_release"), make_example(3.0)) == 0
    assert visualquality_r1_release_format(make_completion(text), make_example(3.0)) == 0
