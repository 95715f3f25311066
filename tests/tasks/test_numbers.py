"""Rules that read numbers, case by case."""

from __future__ import annotations

import pytest

from qhk.tasks.text import MAX_NUMBER_CHARS
from qhk.types import Answer
from tests.tasks.builders import parse_answer

THINK = "<think>a soft image</think>"


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
def test_q_hawkeye_release(text: str, score: float | None) -> None:
    answer = parse_score(text, rule="q_hawkeye_release")
    assert answer.score == score
    assert bool(answer.reason) is (score is None)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>x</think><answer>3.50</answer>", 3.5),
        ("<Answer> -2\n</ANSWER>", -2.0),
        ("<answer>+3.1</answer>", 3.1),
        ("<answer>3.</answer>", None),
        ("<answer>.5</answer>", None),
        ("<answer>3.</answer><answer>4</answer>", 4.0),  # the first tag that holds such a number
        ("<think><answer>1</answer></think><answer>4</answer>", 1.0),
        ("<answer>1.2.3</answer><answer>4</answer>", 4.0),
        ("<answer>- 2</answer>", None),
        ("<answer>--2</answer>", None),
        ("<answer>3,5</answer>", None),
        ("<answer></answer>", None),
        ("3.5", None),
    ],
)
def test_the_uncertainty_of_q_hawkeyes_release(text: str, score: float | None) -> None:
    answer = parse_score(text, rule="q_hawkeye_release_uncertainty")
    assert answer.score == score
    assert bool(answer.reason) is (score is None)


@pytest.mark.parametrize("zero", ["\uff10", "\u0660", "\u0966"], ids=["full-width", "Arabic", "Devanagari"])
@pytest.mark.parametrize(
    ("form", "rule", "text", "numbers"),
    [
        ("score", "q_hawkeye_release", "<answer>3.25</answer>", (3.25,)),
        ("score", "q_hawkeye_release_uncertainty", "<answer>-3.25</answer>", (-3.25,)),
        ("score", "q_insight_release", '<answer>{"rating": 3.25}</answer>', (3.25,)),
        ("score", "visualquality_r1_release", "<answer>-3.25 of 5</answer>", (-3.25,)),
        ("multi_aspect", "preresq_r1_release", "1 2.5 3 .5 -1.5", (1.0, 2.5, 3.0, 0.5, -1.5)),
        ("video", "preresq_r1_release", "1\n25", (1.0, 25.0)),
    ],
)
def test_the_releases_read_digits_of_every_script(
    form: str, rule: str, text: str, numbers: tuple[float, ...], zero: str
) -> None:
    scripts = {ord("0") + n: ord(zero) + n for n in range(10)}
    for one in (text, text.translate(scripts), text.translate({ord("5"): scripts[ord("5")]})):
        assert parse_answer(one, form=form, rule=rule).numbers == numbers
    # A superscript is a digit, but no decimal one.
    assert parse_answer(text.translate(dict.fromkeys(scripts, "\u00b2")), form=form, rule=rule).numbers == ()


@pytest.mark.parametrize(
    ("content", "score"),
    [
        ('{"rating": 3.25}', 3.25),
        ('\n{ "rating" :\t3.25 }\n', 3.25),
        ('{"rating": 10}', 10.0),
        ('{"rating": -2}', -2.0),
        ('{"rating": 1e0}', 1.0),
        ('{"\\u0072ating": 4}', 4.0),
        ("3.25", None),
        ('{"rating": "3.25"}', None),
        ('{"rating": true}', None),
        ('{"rating": null}', None),
        ('{"rating": NaN}', None),
        ('{"rating": -Infinity}', None),
        ('{"rating": 1e999}', None),
        ('{"rating": +3}', None),
        ('{"rating": .5}', None),
        ('{"rating": 3.}', None),
        ('{"rating": 3,5}', None),
        ('{"rating": [3]}', None),
        ('{"rating": {"rating": 3}}', None),
        ('[{"rating": 3}]', None),
        ('{"Rating": 3}', None),
        ("{'rating': 3}", None),
        ('{"rating": 3, "reason": "soft"}', None),
        ('{"rating": 3, "rating": 4}', None),
        ('{"rating": 3,}', None),
        ("{}", None),
        ('"{"', None),
        ('```json\n{"rating": 3}\n```', None),
        ('{"rating": 3} {"rating": 4}', None),
        ('{"rating": ' + "1" * 300 + "}", None),
        ("", None),
    ],
)
def test_json_is_an_object_with_one_rating(content: str, score: float | None) -> None:
    answer = parse_score(f"{THINK}<answer>{content}</answer>", rule="json")
    assert answer.score == score
    assert bool(answer.reason) is (score is None)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('<answer>\n{"rating": 3.25}\n</answer>', 3.25),
        ('<answer>```json {"rating":4}```</answer>', 4.0),
        ('<answer>{"rating": 10}</answer>', 10.0),
        ('<answer>"rating": 2, "rating": 5</answer>', 2.0),
        ('<think><answer>{"rating": 1}</answer></think><answer>{"rating": 4}</answer>', 1.0),
        ('<answer>none</answer><answer>{"rating": 4}</answer>', None),
        ('<answer>{"rating": "3.25"}</answer>', None),
        ('<answer>{"rating": -2}</answer>', None),
        ('<answer>{"rating": 1.2.3}</answer>', None),
        ("<answer>{'rating': 3}</answer>", None),
        ('<answer>{"rating": 3', None),
        ('{"rating": 3}', None),
    ],
)
def test_q_insight_release(text: str, score: float | None) -> None:
    assert parse_score(text, rule="q_insight_release").score == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>x</think><answer>3.50</answer>", 3.5),
        ("<answer>1</answer><answer>about -2.5 or 4</answer>", -2.5),
        ("<answer>1<answer>2</answer>", 1.0),
        ("<think>I see 2 flaws", 2.0),
        ("<answer>good</answer> 4", None),
        ("<answer>10</answer>", 10.0),
        ("<answer>.5</answer>", 5.0),
        ("<answer>3.</answer>", 3.0),
        ("</answer>4<answer>", 4.0),
        ("soft", None),
        ("", None),
    ],
)
def test_visualquality_r1_release(text: str, score: float | None) -> None:
    assert parse_score(text, rule="visualquality_r1_release").score == score


@pytest.mark.parametrize(
    ("content", "aspects"),
    [
        ("1\n2\n3\n4\n5", (1.0, 2.0, 3.0, 4.0, 5.0)),
        ("\n 4.38 \r\n\t4.03\n2.68\n2.04\n3.05\n", (4.38, 4.03, 2.68, 2.04, 3.05)),
        ("10\n10\n10\n10\n10", (10.0,) * 5),
        ("1\n2\n3\n4", ()),
        ("1\n2\n3\n4\n5\n6", ()),
        ("1 2 3 4 5", ()),
        ("1,2,3,4,5", ()),
        ("1\n2\n3\n\n4\n5", ()),
        ("1\n2\n3\n4\ngood", ()),
        ("1\n2\n3\n4\n5/5", ()),
        ("saturation: 1\n2\n3\n4\n5", ()),
        ("1\n2\n3\n4\n" + "5" * (MAX_NUMBER_CHARS + 1), ()),
    ],
)
def test_lines_of_five_numbers(content: str, aspects: tuple[float, ...]) -> None:
    answer = parse_answer(f"{THINK}<answer>{content}</answer>", form="multi_aspect", rule="lines")
    assert answer.aspects == aspects
    assert answer.score == (pytest.approx(sum(aspects) / 5) if aspects else None)
    assert answer.parsed is bool(aspects) is not bool(answer.reason)


def test_lines_of_two_numbers() -> None:
    answer = parse_answer(f"{THINK}<answer>2\n3.5</answer>", form="video", rule="lines")
    assert (answer.score, answer.aspects) == (2.75, (2.0, 3.5))
    assert not parse_answer("<answer>2\n3\n4</answer>", form="video", rule="lines").parsed
    assert not parse_answer("<think>2\n3</think>", form="video", rule="lines").parsed


@pytest.mark.parametrize(
    ("text", "aspects"),
    [
        ("<answer>1.5\n2\n3\n4\n5</answer>", (1.5, 2.0, 3.0, 4.0, 5.0)),
        ("<think>9 of 10</think><answer>1 2 3 4</answer>", (10.0, 1.0, 2.0, 3.0, 4.0)),
        ("<answer>1 2 3 4 5</answer> at 600 dpi", (2.0, 3.0, 4.0, 5.0, 600.0)),
        ("4 then 2", (4.0, 2.0, 4.0, 4.0, 4.0)),
        ("-.5", (-0.5,) * 5),
        ("-3 and 3.", (3.0, 3.0, 3.0, 3.0, 3.0)),
        ("1.2.3", (1.2, 0.3, 1.2, 1.2, 1.2)),
        ("10", (10.0,) * 5),
        ("none", ()),
        ("1" * (MAX_NUMBER_CHARS + 1), ()),
    ],
)
def test_preresq_r1_release(text: str, aspects: tuple[float, ...]) -> None:
    answer = parse_answer(text, form="multi_aspect", rule="preresq_r1_release")
    assert answer.aspects == aspects
    assert answer.score == (pytest.approx(sum(aspects) / 5) if aspects else None)


def test_preresq_r1_release_of_two() -> None:
    def read(text: str) -> tuple[float, ...]:
        return parse_answer(text, form="video", rule="preresq_r1_release").aspects

    assert read("1 2 3") == (2.0, 3.0)
    assert read("4") == (4.0, 4.0)
