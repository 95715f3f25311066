from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.repetition import q_hawkeye_release_repetition
from qhk.types import Answer, Completion, Example

UNTAGGED = "this image is blurred and noisy with weak colours and poor sharpness"


def penalty(text: str) -> float:
    completion = Completion(text=text, answer=Answer(score=None), num_tokens=1, truncated=False)
    return q_hawkeye_release_repetition(completion, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>x</think><answer>3.50</answer>", 0.0),
        ("<answer>3.333333</answer>", -1.75),  # seven times the character 3
        ("<answer>3.3333</answer>", 0.0),  # five times is allowed
        ("<answer>33333.3</answer>", -1.5),
        (UNTAGGED, -2.0),
        ("", 0.0),
        ("<answer></answer>" + "a" * 100, 0.0),
        ("<answer>" + "a" * 6, -1.75),  # no complete tag: the whole text counts, the a of "answer" included
        ("<answer>1</answer><answer>aaaaaaaa</answer>", 0.0),
        ("aaaaaa", -1.5),
        ("a!a!a!a!a!", 0.0),
        ("\n" * 8 + "abc" + " " * 8, 0.0),  # white space around does not count, with a tag or without
        ("<answer>" + " " * 8 + "3.50" + "\n" * 8 + "</answer>", 0.0),
        ("a" + " " * 6 + "b", -1.5),
    ],
)
def test_by_hand(text: str, value: float) -> None:
    assert penalty(text) == value


def test_words_and_characters_are_added_up() -> None:
    # six words "b" (6), six characters b (6), five spaces (allowed): 12 * .25 is beyond the bound
    assert penalty("<answer>b b b b b b</answer>") == -2.0


def test_spaces_count_as_characters() -> None:
    assert penalty("<answer>ab cd ef gh ij kl mn</answer>") == -1.5


@given(st.text())
def test_bounded(text: str) -> None:
    assert -2.0 <= penalty(text) <= 0.0


@given(st.decimals(1, 5, places=2))
def test_scores_of_two_decimals_cost_nothing(score: object) -> None:
    assert penalty(f"<think>{UNTAGGED}</think><answer>{score}</answer>") == 0.0


def test_the_example_is_not_read(
    make_completion: Callable[..., Completion], make_example: Callable[[float], Example]
) -> None:
    completion = make_completion("<answer>3.333333</answer>")
    assert q_hawkeye_release_repetition(completion, make_example(1.0)) == -1.75
