"""Rules that read words, case by case."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.tasks.forms.comparison import CHOICES
from qhk.tasks.forms.degradation import DISTORTION_CLASSES, SEVERITIES
from tests.tasks.builders import parse_answer

THINK = "<think>a soft image</think>"


def read(content: str, form: str, rule: str) -> tuple[str, ...]:
    """The words that were read; none where nothing was."""
    answer = parse_answer(f"{THINK}<answer>{content}</answer>", form=form, rule=rule)
    assert answer.score is None
    assert answer.parsed is bool(answer.labels) is not bool(answer.reason)
    return tuple(answer.labels.values())


@pytest.mark.parametrize(
    ("content", "ours", "release"),
    [
        ('{"distortion_class": "blur", "severity": "slight"}', ("blur", "slight"), ("blur", "slight")),
        ('\n{"distortion_class":"null","severity":"null"}\n', ("null", "null"), ("null", "null")),
        ('{"severity": "slight", "distortion_class": "blur"}', ("blur", "slight"), ()),
        ('{"distortion_class": null, "severity": null}', ("null", "null"), ()),
        ('{"distortion_class": "null", "severity": "slight"}', ("null", "slight"), ("null", "slight")),
        ('{"distortion_class": "Blur", "severity": "slight"}', (), ("Blur", "slight")),
        ('{"distortion_class": "grain", "severity": "slight"}', (), ("grain", "slight")),
        ('{"distortion_class": "blur", "severity": 2}', (), ()),
        ('{"distortion_class": "blur"}', (), ()),
        ('{"distortion_class": "blur", "severity": "slight", "why": "soft"}', (), ("blur", "slight")),
        ('{"distortion_class": "blur", "severity": "slight", "severity": "obvious"}', (), ("blur", "slight")),
        ('```json\n{"distortion_class": "blur", "severity": "slight"}\n```', (), ("blur", "slight")),
        ('{"distortion_class": ["blur"], "severity": "slight"}', (), ()),
        ('{"distortion_class": "blur", "why": "soft", "severity": "slight"}', (), ("blur", "slight")),
        ('{"distortion_class": "blur" and\n"severity" : "slight"}', (), ("blur", "slight")),
        ('{"distortion_class": "blur"; "severity": "slight"}', (), ("blur", "slight")),
        ('{"distortion_class": " blur ", "severity": "slight\\n"}', (), ("blur", "slight\\n")),
        ('{"distortion_class": "\tblur", "severity": " slight\n"}', (), ("blur", "slight")),
        ('{"distortion_class": "blur", "severity": ""}', (), ()),
        ('{"distortion_class": "", "severity": "slight"}', (), ()),
        ('{"distortion_class": "blur", "severity": "", "severity": "slight"}', (), ("blur", "slight")),
        (
            '{"distortion_class": "", "distortion_class": "blur", "severity": "slight"}',
            (),
            ("blur", "slight"),
        ),
        (
            '"distortion_class": "blur", "distortion_class": "noise", "severity": "slight"',
            (),
            ("blur", "slight"),
        ),
        ('"severity": "slight", "distortion_class": "blur", "severity": "obvious"', (), ("blur", "obvious")),
        ('"distortion_class": "blur" </answer> "severity": "slight"', (), ()),
        ("blur, slight", (), ()),
        ("", (), ()),
    ],
)
def test_degradation(content: str, ours: tuple[str, ...], release: tuple[str, ...]) -> None:
    assert read(content, "degradation", "json") == ours
    assert read(content, "degradation", "q_insight_release") == release


def labelled(content: str, name: str) -> list[tuple[int, int, str]]:
    """Every place of a name in quotes, a colon and a word in quotes after each other: (from, to, word)."""
    found = []
    for start in range(len(content)):
        rest = content[start:].removeprefix(f'"{name}"').lstrip()
        if content[start:].startswith(f'"{name}"') and rest.startswith(":"):
            value = rest[1:].lstrip()
            word, closing, behind = value[1:].partition('"')
            if value.startswith('"') and closing and word:
                found.append((start, len(content) - len(behind), word.strip()))
    return found


PIECES = [
    '"distortion_class"',
    '"severity"',
    ":",
    " ",
    "\n",
    '"blur"',
    '" slight"',
    '""',
    '"',
    ",",
    "null",
    "{",
]


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_the_release_takes_the_first_pair_in_order(content: str) -> None:
    pairs = [
        (kind, severity)
        for _, end, kind in labelled(content, "distortion_class")
        for start, _, severity in labelled(content, "severity")
        if start >= end
    ]
    assert read(content, "degradation", "q_insight_release") == (pairs[0] if pairs else ())


@given(st.sampled_from(DISTORTION_CLASSES), st.sampled_from(SEVERITIES), st.booleans())
def test_every_degradation_is_read_back(kind: str, severity: str, swapped: bool) -> None:
    names = {"distortion_class": kind, "severity": severity}
    pairs = list(names.items())[::-1] if swapped else list(names.items())
    answer = parse_answer(f"<answer>{json.dumps(dict(pairs))}</answer>", form="degradation", rule="json")
    assert answer.labels == names


@pytest.mark.parametrize("content", [*CHOICES, " Image A ", "\nImage B\n"])
def test_choices_are_read(content: str) -> None:
    for rule in ("choice", "q_insight_release"):
        assert read(content, "comparison", rule) == (content.strip(),)
    two = () if content == "Similar" else (content.strip(),)
    assert read(content, "comparison", "choice_of_two") == two


@pytest.mark.parametrize(
    "content",
    [
        "image a",
        "A",
        "Image  A",
        "Image A.",
        "Image AB",
        "Image A Image B",
        '"Image A"',
        "similar",
        "Image C",
        "",
    ],
)
@pytest.mark.parametrize("rule", ["choice", "choice_of_two", "q_insight_release"])
def test_what_is_no_choice_is_refused(content: str, rule: str) -> None:
    assert read(content, "comparison", rule) == ()


def test_the_release_reads_the_first_tag_and_the_reasoning() -> None:
    text = "<think>is it <answer>Image A</answer></think><answer>Image B</answer>"
    assert parse_answer(text, form="comparison", rule="q_insight_release").labels == {"choice": "Image A"}
    assert parse_answer(text, form="comparison", rule="choice").labels == {"choice": "Image B"}
    assert not parse_answer("Image B", form="comparison", rule="q_insight_release").parsed
