"""What holds for every form and rule: no text raises, takes long, or is read from outside the answer."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhk.tasks import find_form, form_names
from qhk.types import Answer
from tests.tasks.builders import EVERY_RULE as ALL
from tests.tasks.builders import parse_answer, task_of

OURS = [(form, rule) for form, rule in ALL if not rule.endswith("_release")]

CONTENTS = {
    "strict": "3.5",
    "json": '{"rating": 4}',
    "lines": "1\n2.5\n3\n4\n5",
    "two lines": "1\n2.5",
    "choice": "Image A",
    "words": '{"distortion_class": "blur", "severity": "slight"}',
}
"""One content that some rule reads, of every kind."""

FRAGMENTS = st.sampled_from(
    [
        "<think>", "</think>", "<answer>", "</answer>", "<ANSWER>", "3", "10", "4.5", ".", "-", " ", "\n",
        ",", ":", "score 4", "{", "}", "[", '"', '"rating"', '"distortion_class"', '"severity"', '"blur"',
        "null", "1e999", "Similar", "\\", "٣", "\x00", "\ud800", *CONTENTS.values(),
    ]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(FRAGMENTS, max_size=16).map("".join))
CONTENT = st.one_of(st.sampled_from(sorted(CONTENTS.values())), TEXTS)


@given(TEXTS, st.sampled_from(ALL))
@settings(max_examples=400, deadline=None)
def test_no_text_raises_and_what_is_read_is_whole(text: str, how: tuple[str, str]) -> None:
    form, rule = how
    answer = parse_answer(text, form=form, rule=rule)
    assert answer.parsed is not bool(answer.reason)
    if not answer.parsed:
        assert answer == Answer(score=None, reason=answer.reason)
    elif not task_of(form, rule).has_scores:
        assert answer.score is None
        assert tuple(answer.labels) == find_form(form).labels
    else:
        assert answer.score is not None
        assert math.isfinite(answer.score)
        assert len(answer.aspects) == find_form(form).num_aspects
        assert all(math.isfinite(aspect) for aspect in answer.aspects)


@given(CONTENT, TEXTS, st.sampled_from(OURS))
@settings(max_examples=400, deadline=None)
def test_the_reading_depends_on_the_answer_alone(content: str, before: str, how: tuple[str, str]) -> None:
    form, rule = how
    # A content that closes or opens a block would end it elsewhere.
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        content = content.replace(tag, "").replace(tag, "")
    alone = parse_answer(f"<answer>{content}</answer>", form=form, rule=rule)
    inside = parse_answer(f"{before}</think>\n<answer>{content}</answer> 2.5 Image B", form=form, rule=rule)
    assert inside == alone


@given(TEXTS, st.sampled_from(OURS))
@settings(max_examples=400, deadline=None)
def test_what_is_read_stands_alone_in_an_answer_tag(text: str, how: tuple[str, str]) -> None:
    form, rule = how
    answer = parse_answer(text, form=form, rule=rule)
    if answer.parsed:
        pieces = [piece.split("</answer>")[0] for piece in text.split("<answer>")[1:]]
        assert answer in [parse_answer(f"<answer>{piece}</answer>", form=form, rule=rule) for piece in pieces]


@given(TEXTS, st.sampled_from(ALL))
@settings(max_examples=400, deadline=None)
def test_a_rule_reads_in_its_span_and_nowhere_else(text: str, how: tuple[str, str]) -> None:
    form, rule = how
    span, answer = task_of(form, rule).answer_span(text), parse_answer(text, form=form, rule=rule)
    assert span is None or 0 <= span[0] < span[1] <= len(text)
    if answer.parsed:
        assert span is not None
        part = f"<answer>{text[slice(*span)]}</answer>"
        assert parse_answer(part, form=form, rule=rule) == answer


@pytest.mark.parametrize(
    ("form", "rule", "text", "inside"),
    [
        ("score", "strict", "<think>1</think><answer> 2.5 </answer>", "2.5"),
        ("score", "strict", "<answer> a bit </answer>", "a bit"),
        ("score", "strict", "<answer>2</answer></think>3", None),
        ("score", "q_hawkeye_release", "<answer>x</answer><Answer> 2. </answer><answer>3</answer>", "2."),
        (
            "score",
            "q_insight_release",
            '<answer>\n{"rating": 2}\n</answer><answer>9</answer>',
            '{"rating": 2}',
        ),
        ("score", "q_insight_release", "<answer> </answer>", None),
        ("comparison", "q_insight_release", "<answer>Similar</answer>", "Similar"),
        ("score", "visualquality_r1_release", "1<answer>2</answer><answer>about 3</answer>4", "about 3"),
        ("score", "visualquality_r1_release", "it is 4 of 5", "4"),
        ("video", "preresq_r1_release", "1 2<answer>3\n4.5</answer>", "3\n4.5"),
        ("multi_aspect", "preresq_r1_release", "1 and 2.5", "1 and 2.5"),
        ("video", "preresq_r1_release", "none", None),
    ],
)
def test_where_the_rules_look(form: str, rule: str, text: str, inside: str | None) -> None:
    span = task_of(form, rule).answer_span(text)
    assert (None if span is None else text[slice(*span)]) == inside


@pytest.mark.parametrize(("form", "rule"), OURS)
def test_every_rule_reads_its_own_content_and_no_other(form: str, rule: str) -> None:
    read = {
        name
        for name, content in CONTENTS.items()
        if parse_answer(f"<think>x</think><answer>{content}</answer>", form=form, rule=rule).parsed
    }
    expected = {
        ("score", "json"): "json",
        ("degradation", "json"): "words",
        ("video", "lines"): "two lines",
        ("multi_aspect", "lines"): "lines",
    }
    name = expected.get((form, rule), "choice" if form == "comparison" else "strict")
    assert read == {name}


def content_of(number: int, form: str, rule: str) -> str:
    """How a number is written for a rule of a form whose answers are numbers."""
    if form == "score":
        is_object = rule in ("json", "q_insight_release")
        return json.dumps({"rating": number}) if is_object else str(number)
    return "\n".join([str(number)] * find_form(form).num_aspects)


@given(st.integers(0, 10**9), st.sampled_from([how for how in ALL if find_form(how[0]).has_scores]))
def test_a_number_is_read_whole(number: int, how: tuple[str, str]) -> None:
    form, rule = how
    text = f"<think>x</think><answer>{content_of(number, form, rule)}</answer>"
    assert parse_answer(text, form=form, rule=rule).score == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize(
    "piece",
    [
        "<answer>", "</answer>", "<answer> ", "<answer>1", "<answer>1 ", " ", "\n", "1", "-", "1-",
        "<think>", "</think>", "<answer", "1.", '"', "{", "[", '{"rating":', '"rating"', '"rating": ',
        '"distortion_class":"', '"distortion_class": "blur", ', "<answer></answer>", "</answer><answer>",
        "Image A", "\\",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("form", "rule"), ALL)
def test_adversarial_texts_are_read_in_linear_time(piece: str, form: str, rule: str) -> None:
    # A quadratic reading of so many characters would not end within the life of the suite.
    for tail in ("", "</answer>"):
        answer = parse_answer("<answer>" + piece * (300_000 // len(piece)) + tail, form=form, rule=rule)
        assert answer.parsed == (not answer.reason), "either something is read, or a reason is given"


def test_unknown_rule_is_refused() -> None:
    message = r"^answer_rule: unknown rule 'loose' of form score; use one of strict, json, "
    with pytest.raises(ValueError, match=message):
        parse_answer("", form="score", rule="loose")


def test_unknown_form_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^form: unknown form 'taste'; use one of comparison, degradation, "
    ):
        parse_answer("", form="taste", rule="strict")


@pytest.mark.parametrize("form", form_names())
def test_a_form_is_called_like_its_file_and_measures_what_it_answers(form: str) -> None:
    task = find_form(form)
    assert task.form == form
    assert task.has_scores == (not task.labels) == ("score" in task.answer_parts())
    several = task.labels if len(task.labels) > 1 else ()
    assert task.has_scores or [*task.metrics] == ["accuracy", *(f"{name}_accuracy" for name in several)]


def test_every_form_is_found() -> None:
    assert form_names() == ("comparison", "degradation", "multi_aspect", "score", "video")
