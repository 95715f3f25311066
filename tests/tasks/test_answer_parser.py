"""Where answers stand: beside the patterns of the releases, and a JSON reader told what to refuse."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.tasks.answer_parser import (
    MAX_OBJECT_CHARS,
    first_answer_anywhere,
    flat_object,
    last_answer,
    last_answer_anywhere,
)

TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", "b", " ", "\n"]), max_size=14
).map("".join)


@given(TEXTS)
def test_the_releases_look_anywhere(text: str) -> None:
    blocks = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    assert first_answer_anywhere(text) == (blocks[0] if blocks else None)
    assert last_answer_anywhere(text) == (blocks[-1] if blocks else None)


@given(TEXTS)
def test_ours_looks_behind_the_reasoning(text: str) -> None:
    closed = text.split("</think>")[-1].split("<think>")[0]
    before, _, _ = closed.rpartition("</answer>")
    expected = before.rpartition("<answer>")[2].strip() if "<answer>" in before else None
    content, reason = last_answer(text)
    assert content == (expected or None)
    assert bool(reason) is (content is None)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("{}", {}),
        ('\t{"a": 1, "b": -2.5e1, "c": "x", "d": null, "e": true}\n',
         {"a": 1.0, "b": -25.0, "c": "x", "d": None, "e": True}),
        ('{"a": 1, "a": 1}', None),
        ('{"a": NaN}', None),
        ('{"a": -Infinity}', None),
        ('{"a": {}}', None),
        ('{"a": []}', None),
        ('{"a{": 1}', None),
        ('{"a": 1', None),
        ("1", None),
        ("", None),
        ('\ufeff{"a": 1}', None),
        ('{"a": "' + "x" * MAX_OBJECT_CHARS + '"}', None),
    ],
)  # fmt: skip
def test_flat_objects(content: str, value: object) -> None:
    found = flat_object(content)
    assert found == value
    assert found is None or all(type(number) is not int for number in found.values())


@given(
    st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.booleans(), st.text(max_size=4)), max_size=4)
)
def test_what_json_wrote_is_read_back(value: dict[str, object]) -> None:
    text = json.dumps(value)
    is_plain = len(text) <= MAX_OBJECT_CHARS and text.count("{") == 1 and "[" not in text
    assert flat_object(text) == (value if is_plain else None)
