from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.answer import ANSWER_RULES, MAX_NUMBER_CHARS, parse_answer
from qhk.types import Answer

THINK = "<think>a soft image</think>"
FRAGMENTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "3",
        "10",
        "4.5",
        ".",
        " ",
        "\n",
        "<ANSWER>",
        "5",
        "score 4",
        "-",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(FRAGMENTS, max_size=12).map("".join))


def parse_score(text: str, rule: str = "strict") -> Answer:
    return parse_answer(text, form="score", rule=rule)


def strict(content: str) -> float | None:
    return parse_score(f"{THINK}<answer>{content}</answer>").score


@pytest.mark.parametrize(
    ("content", "score"),
    [
        ("3", 3.0),
        ("3.", 3.0),
        (".5", 0.5),
        ("3.50", 3.5),
        ("+3.5", 3.5),
        ("-2", -2.0),
        ("10", 10.0),
        ("100.25", 100.25),
        (" \n 4.25\t", 4.25),
        ("007", 7.0),
    ],
)
def test_strict_reads_one_decimal_number(content: str, score: float) -> None:
    assert strict(content) == score


@pytest.mark.parametrize(
    "content",
    [
        "", " ", ".", "+", "-", "+-3", "3,5", "4/5", "1.2.3", "3 4", "3 out of 5", "score: 3", "3%", "nan",
        "inf", "-inf", "1e3", "0x3", "1_000", "٣", "３", "²", "3\u00a0", "three", "<b>3</b>", "<answer>",
        "3</answer>", "1" * (MAX_NUMBER_CHARS + 1),
    ],
)  # fmt: skip
def test_strict_refuses_all_else_and_says_why(content: str) -> None:
    answer = parse_score(f"{THINK}<answer>{content}</answer>")
    assert answer.score is None
    assert not answer.parsed
    assert answer.reason


def test_strict_never_clips() -> None:
    assert strict("7.9") == 7.9
    assert strict("-40") == -40.0


def test_strict_takes_the_last_complete_tag_after_the_reasoning() -> None:
    assert parse_score(f"{THINK}<answer>2</answer><answer>4</answer>").score == 4.0
    assert parse_score(f"{THINK}<answer>2</answer> then <answer>4").score == 2.0
    assert parse_score(f"{THINK}<answer>2</answer><answer>none</answer>").score is None
    assert parse_score("<answer>3</answer>").score == 3.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<think>maybe <answer>2</answer></think>", "no answer tag"),
        ("<think>maybe <answer>2</answer>", "reasoning not closed"),
        ("<answer>2</answer></think>", "no answer tag"),
        (f"{THINK}<answer>2</answer></think>", "no answer tag"),
        ("4.5", "no answer tag"),
        ("", "no answer tag"),
        (f"{THINK}4.5", "no answer tag"),
        (f"{THINK}<answer>4.5", "no answer tag"),
        (f"{THINK}4.5</answer>", "no answer tag"),
        (f"{THINK}<ANSWER>4.5</ANSWER>", "no answer tag"),
        (f"{THINK}<answer></answer>", "empty answer"),
        (f"{THINK}<answer>good</answer>", "not one number"),
    ],
)
def test_strict_reads_nothing_from_outside_the_answer(text: str, reason: str) -> None:
    answer = parse_score(text)
    assert answer.score is None
    assert answer.reason == reason


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>x</think><answer>3.50</answer>", 3.5),
        ("<answer> 3. </answer>", 3.0),
        ("<Answer>.5</ANSWER>", 0.5),
        ("<answer>good</answer><answer>2</answer>", 2.0),
        ("<think><answer>1</answer></think><answer>4</answer>", 1.0),
        ("<answer>1.2.3</answer><answer>4</answer>", None),
        ("<answer>.</answer>", None),
        ("<answer>-2</answer>", None),
        ("<answer>+3</answer>", None),
        ("<answer>3,5</answer>", None),
        ("<answer>4/5</answer>", None),
        ("<answer></answer>", None),
        ("3.5", None),
    ],
)
def test_release_rule(text: str, score: float | None) -> None:
    answer = parse_score(text, rule="q_hawkeye_release")
    assert answer.score == score
    assert bool(answer.reason) is (score is None)


@given(TEXTS, st.sampled_from(sorted(ANSWER_RULES["score"])))
def test_no_text_raises(text: str, rule: str) -> None:
    answer = parse_score(text, rule=rule)
    assert answer.parsed is not bool(answer.reason)


@given(TEXTS, st.one_of(st.text(max_size=8), st.decimals(0, 100, places=2).map(str)))
def test_the_reading_depends_on_the_answer_alone(reasoning: str, content: str) -> None:
    expected = strict(content)
    reasoning = reasoning.replace("<answer>", "").replace("</answer>", "")
    assert parse_score(f"<think>{reasoning}</think>\n<answer>{content}</answer>").score == expected


@given(TEXTS)
def test_what_is_read_stands_alone_in_an_answer_tag(text: str) -> None:
    score = parse_score(text).score
    if score is not None:
        pieces = [piece.split("</answer>")[0].strip() for piece in text.split("<answer>")[1:]]
        assert any(strict(piece) == score for piece in pieces)


@given(st.integers(0, 10**9), st.sampled_from(sorted(ANSWER_RULES["score"])))
def test_a_number_is_read_whole(number: int, rule: str) -> None:
    assert parse_score(f"{THINK}<answer>{number}</answer>", rule=rule).score == number


@pytest.mark.parametrize(
    "piece",
    [
        "<answer>",
        "</answer>",
        "<answer> ",
        "<answer>1",
        "<answer>1 ",
        " ",
        "1",
        "<think>",
        "</think>",
        "<answer",
        "1.",
    ],
)
@pytest.mark.parametrize("rule", sorted(ANSWER_RULES["score"]))
def test_adversarial_texts_are_read_in_linear_time(piece: str, rule: str) -> None:
    # A quadratic reading of a million characters would not end within the life of the suite.
    text = "<answer>" + piece * (1_000_000 // len(piece))
    assert parse_score(text, rule=rule).score is None


def test_unknown_rule_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"task\.answer_rule: unknown rule 'loose' of form score; use one of strict"
    ):
        parse_score("", rule="loose")
