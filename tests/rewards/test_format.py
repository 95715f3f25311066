from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.format import (
    answer_only_format,
    preresq_r1_release_format,
    q_hawkeye_release_format,
    strict_lines_format,
    strict_lines_json_format,
    tag_count_format,
    tags_json_format,
    think_answer_format,
    visualquality_r1_release_format,
)
from qhk.types import Answer, Completion, Example
from tests.rewards.steps import answer
from tests.tasks.builders import parse_answer

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


ANSWER_LINE = "</think>\n<answer>\n"
LINES = "<think>\nx\n</think>\n<answer>\n{}\n</answer>"
OBJECT = '{"rating": 3.5}'


@pytest.mark.parametrize(
    ("text", "tags", "json_lines", "any_lines"),
    [
        (LINES.format(OBJECT), 1, 1, 1),
        (f"<think>x</think><answer>{OBJECT}</answer>", 1, 0, 0),
        (f" <think>x</think>\n\n<answer> {OBJECT} </answer>\n", 1, 0, 0),
        (LINES.format(OBJECT) + "\n", 1, 1, 1),
        ("\n" + LINES.format(OBJECT), 1, 0, 0),
        (LINES.format(OBJECT) + "\ndone", 0, 0, 0),
        (LINES.format("{}"), 1, 1, 1),
        (LINES.format("{rating: 3.5}"), 0, 1, 1),
        (LINES.format('{"rating": {"all": 3}}'), 0, 0, 1),
        (LINES.format(f"```json\n{OBJECT}\n```"), 0, 0, 1),
        (LINES.format(f"{OBJECT}\n{OBJECT}"), 0, 0, 1),
        (LINES.format("Image A"), 0, 0, 1),
        (LINES.format(""), 0, 0, 1),
        ("<think>\nx\n</think>\n<answer>\n</answer>", 0, 0, 0),
        (f"<think>\nx\n</think><answer>\n{OBJECT}\n</answer>", 1, 0, 0),
        (f"<think>\nx</think>\n<answer>\n{OBJECT}\n</answer>", 1, 0, 0),
        (f"<think>x\n</think>\n<answer>\n{OBJECT}\n</answer>", 1, 0, 0),
        (f"<think>\nx\n</think>\n<answer>{OBJECT}\n</answer>", 1, 0, 0),
        (f"<think>\nx\n</think>\n<answer>\n{OBJECT}</answer>", 1, 0, 0),
        (f"<think>\nx\n</think>\nso\n<answer>\n{OBJECT}\n</answer>", 0, 0, 0),
        (f"<think> \nx\n</think> \n<answer> \n{OBJECT} \n</answer> ", 1, 1, 1),
        (f"<think>\n x\n </think>\n<answer>\n{OBJECT}\n </answer>", 1, 1, 1),
        (f"<think>\nx\n</think>\n<answer>\n {OBJECT}\n</answer>", 1, 0, 1),
        (f"<think>\nx\n</think>\n <answer>\n{OBJECT}\n</answer>", 1, 0, 0),
        (f"<think>\nx\n</think>\n\n<answer>\n\n{OBJECT}\n\n</answer>", 1, 1, 1),
        (LINES.format('{"why": "<answer>"}'), 0, 1, 1),
        (LINES.format(LINES.format(OBJECT)), 0, 0, 1),
        (LINES.format(LINES.format("Image A")), 0, 0, 1),
        (f"<think>\n\n</think>\n<answer>\n{OBJECT}\n</answer>", 0, 1, 1),
        (f"<think>\n</think>\n<answer>\n{OBJECT}\n</answer>", 0, 0, 0),
        (f"<think>\n<answer>\n1\n</answer>\n</think>\n<answer>\n{OBJECT}\n</answer>", 0, 1, 1),
        (f"<answer>\n{OBJECT}\n</answer>", 0, 0, 0),
        (f"<think>\n<answer>\n{OBJECT}\n</answer>", 0, 0, 0),
        (f"<think>\nx\n</think>\n<answer>\n{OBJECT}", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_the_forms_of_q_insight(
    make_completion: Make,
    make_example: MakeExample,
    text: str,
    tags: float,
    json_lines: float,
    any_lines: float,
) -> None:
    completion, example = make_completion(text, "json"), make_example(3.0)
    assert tags_json_format(completion, example) == tags
    assert strict_lines_json_format(completion, example) == json_lines
    assert strict_lines_format(completion, example) == any_lines


def test_readable_is_what_the_tasks_rule_reads(make_completion: Make, make_example: MakeExample) -> None:
    example = make_example(3.0)
    for form, rule, content in (
        ("score", "json", OBJECT),
        ("degradation", "json", '{"distortion_class": "blur", "severity": "slight"}'),
        ("comparison", "choice", "Image B"),
        ("multi_aspect", "lines", "1\n2\n3\n4\n5"),
        ("video", "lines", "1\n2"),
    ):
        text = f"<think>x</think><answer>{content}</answer>"
        assert think_answer_format(make_completion(text, rule, form), example) == 1.0
        assert think_answer_format(make_completion(text.replace("x", ""), rule, form), example) == 0.0
        assert think_answer_format(make_completion(text), example) == 0.0


@pytest.mark.parametrize(
    ("content", "five", "two"),
    [
        ("1\n2\n3\n4\n5", 1, 0),
        ("\n1\n2.5\n3.\n4\n5\n", 1, 0),
        ("1 \n\n 2\n3\n4\n5 ", 1, 0),
        ("1 2\n3\n4\n5", 0, 0),
        ("1\n2\n3\n4", 0, 0),
        ("1\n2\n3\n4\n5\n6", 0, 0),
        ("1\n2\n3\n4\n-5", 0, 0),
        ("1\n2\n3\n4\n.5", 0, 0),
        ("1\n2\n3\n4\n5/5", 0, 0),
        ("1\n2\n", 0, 1),
        (" 1\n\n2 \n ", 0, 1),
        ("1\n2", 0, 0),
        ("1 2\n", 0, 0),
        ("1\n\n", 0, 0),
        ("", 0, 0),
    ],
)
@pytest.mark.parametrize("thought", ["x", "", "x <answer>3</answer>"])
def test_the_form_of_preresq(
    make_completion: Make, make_example: MakeExample, content: str, five: float, two: float, thought: str
) -> None:
    text, example = f"<think>{thought}</think>\n<answer>{content}</answer>", make_example(3.0)
    for form, value in (("multi_aspect", five), ("video", two)):
        assert preresq_r1_release_format(make_completion(text), example, form=form) == value
        for broken in (f" {text}", f"{text}\n", text.replace("</think>\n", "</think> so "), text[7:]):
            assert preresq_r1_release_format(make_completion(broken), example, form=form) == 0


def lies_on_lines(content: str) -> bool:
    """Whether only white space stands before the first line break and behind the last, of two or more."""
    first, *between, last = content.split("\n") if "\n" in content else ("x", "x")
    return bool(between) and not (first + last).strip()


def is_object_on_a_line(content: str) -> bool:
    """Whether a pair of braces begins a line and ends one, and all else is white space."""
    before, opening, rest = content.partition("{")
    inside, closing, behind = rest.partition("}")
    whole = bool(opening and closing) and "{" not in inside and not (before + behind).strip()
    return whole and before.endswith("\n") and "\n" in behind


def cuts(text: str) -> Iterator[tuple[str, str, str]]:
    """Every way to take a text as think block, something, answer block: (thought, something, answer)."""
    whole = text.rstrip()
    if whole.startswith("<think>") and whole.endswith("</answer>"):
        body = whole[len("<think>") : -len("</answer>")]
        for closed in re.finditer("</think>", body):
            for opened in re.finditer("<answer>", body[closed.end() :]):
                start, end = (closed.end() + place for place in opened.span())
                yield body[: closed.start()], body[closed.end() : start], body[end:]


@given(st.lists(st.sampled_from([*FRAGMENTS, "\n", "3\n", "4\n", "{", "}", "{}"]), max_size=8).map("".join))
def test_the_released_forms_are_whole_matches(inside: str) -> None:
    """Held against every way to cut the text, and against single patterns: more than linear time both."""
    lines = LINES.format("{}")
    for text in (
        inside,
        f"<think>\n{inside}\n</answer>",
        f"<think>\nx\n</think>\n<answer>{inside}</answer>",
        *(lines[:place] + inside + lines[place:] for place in (8, 9, 19, 27, 28, 30)),
    ):
        completion = Completion(text=text, answer=Answer(score=None), num_tokens=1, truncated=False)
        number, tail = r"\s*[0-9]+\.?[0-9]*\s*", r"\s*</answer>"
        found = [
            content
            for thought, between, content in cuts(text)
            if lies_on_lines(thought) and between.endswith("\n") and not between.strip()
        ]
        any_content, braces = any(map(lies_on_lines, found)), any(map(is_object_on_a_line, found))
        assert strict_lines_format(completion, None) == any_content  # type: ignore[arg-type]
        assert strict_lines_json_format(completion, None) == braces  # type: ignore[arg-type]
        head = r"<think>.*?</think>\s*<answer>"
        for form, body in (
            ("multi_aspect", rf"({number}\n){{4}}{number}"),
            ("video", rf"({number}\n){{2}}"),
        ):
            expected = re.fullmatch(head + body + tail, text, re.DOTALL) is not None
            assert preresq_r1_release_format(completion, None, form=form) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("digits", ["\uff10", "\u0660", "\u0966"], ids=["full-width", "Arabic", "Devanagari"])
def test_the_releases_take_digits_of_every_script(
    make_completion: Make, make_example: MakeExample, digits: str
) -> None:
    """What ASCII digits earn, those of another script earn, and in no form of ours."""
    scripts, example = {ord("0") + n: ord(digits) + n for n in range(10)}, make_example(3.0)

    def same(reward: Callable[..., float], text: str, **more: str) -> None:
        for one in (text, text.translate(scripts), text.translate({ord("5"): scripts[ord("5")]})):
            assert reward(make_completion(one), example, **more) == 1

    same(q_hawkeye_release_format, "<think>x</think><answer>3.5</answer>")
    same(preresq_r1_release_format, answer("1\n2\n3.\n4.25\n5"), form="multi_aspect")
    same(preresq_r1_release_format, answer("1\n25"), form="video")
    text = "<think>x</think><answer>3.5</answer>"
    assert think_answer_format(make_completion(text.translate(scripts)), example) == 0
    # A digit that is no decimal one, as a superscript, is none anywhere.
    assert q_hawkeye_release_format(make_completion(text.replace("5", "\u00b2")), example) == 0


@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "1", "1\n", "{", "</think>\n", ANSWER_LINE],
)
def test_long_texts_are_judged_in_linear_time(
    make_completion: Make, make_example: MakeExample, piece: str
) -> None:
    example = make_example(3.0)
    for head in ("<think>x", "<think>\nx\n</think>\n<answer>\n"):
        long = make_completion(head + piece * (300_000 // len(piece)) + "x\n</answer>")
        assert tags_json_format(long, example) == 0
        assert strict_lines_json_format(long, example) == 0
        assert strict_lines_json_format(make_completion(head + piece * (300_000 // len(piece))), example) == 0
        strict_lines_format(long, example)
        assert preresq_r1_release_format(long, example, form="multi_aspect") == 0
    text = "<think>x" + piece * (500_000 // len(piece)) + "</answer>"
    assert think_answer_format(make_completion(text), make_example(3.0)) == 0
    assert q_hawkeye_release_format(make_completion(text, "q_hawkeye_release"), make_example(3.0)) == 0
    any_content = visualquality_r1_release_format(make_completion(text), make_example(3.0))
    assert any_content == (piece == ANSWER_LINE)


@pytest.mark.parametrize(
    ("text", "alone", "share"),
    [
        ("<answer>3.2</answer>", 1, 0.5),
        (" <answer> 3.2 </answer>\n", 1, 0.5),
        ("<answer>good</answer>", 0, 0.5),
        ("x<answer>3.2</answer>", 0, 0.5),
        ("<think>x</think><answer>3.2</answer>", 0, 1),
        ("<answer>3</answer><answer>3</answer>", 0, 0),
        ("</answer><think></think>", 0, 0.75),
        ("<think>x<think></think><answer>3", 0, 0.5),
        ("", 0, 0),
    ],
)
def test_an_answer_alone_and_the_share_of_tags(
    make_completion: Make, make_example: MakeExample, text: str, alone: float, share: float
) -> None:
    completion, example = make_completion(text), make_example(3.0)
    assert answer_only_format(completion, example) == alone
    assert tag_count_format(completion, example) == share
