from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qhk.data.prompts import (
    LEVELS,
    build_messages,
    check_pictures,
    level_word,
    num_pictures,
    reasoning_texts,
    target_text,
)
from qhk.rewards.answer import parse_answer
from qhk.types import Example


def example(**labels: str | float) -> Example:
    return Example(
        id="a", dataset="s", image=Path("a"), mos=3.0, mos_native=3.0, higher_is_better=True, labels=labels
    )


def test_messages() -> None:
    assert build_messages(user="How good?", system=None) == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How good?"}]}
    ]
    assert build_messages(user="q", system="s")[0] == {
        "role": "system",
        "content": [{"type": "text", "text": "s"}],
    }


def test_markers_place_the_pictures() -> None:
    (turn,) = build_messages(user="Reference: {image} A: {image}{image}\nWhich?", system=None)
    assert turn["content"] == [
        {"type": "text", "text": "Reference: "},
        {"type": "image"},
        {"type": "text", "text": " A: "},
        {"type": "image"},
        {"type": "image"},
        {"type": "text", "text": "\nWhich?"},
    ]
    (turn,) = build_messages(user='{image} Write {"rating": 3.50}', system=None)
    assert turn["content"] == [{"type": "image"}, {"type": "text", "text": ' Write {"rating": 3.50}'}]
    with pytest.raises(ValueError, match=r"prompt\.system holds \{image\}"):
        build_messages(user="q", system="see {image}")


@pytest.mark.parametrize(
    ("user", "pictures"), [("Rate it.", 1), ("{image} Rate it.", 1), ("{image} or {image}", 2)]
)
def test_prompt_and_pictures_must_agree(user: str, pictures: int) -> None:
    assert num_pictures(user) == pictures
    check_pictures(user, [replace(example(), more_images=(Path("b"),) * (pictures - 1))])
    with pytest.raises(
        ValueError, match=rf"prompt\.user shows {pictures} pictures .* a of s has {pictures + 1}"
    ):
        check_pictures(user, [replace(example(), more_images=(Path("b"),) * pictures)])


@pytest.mark.parametrize("text", ["look: <image>", "<|image_pad|>"])
def test_image_tokens_in_the_wording_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"prompt\.user holds"):
        build_messages(user=text, system=None)


@pytest.mark.parametrize(
    ("mos", "word"),
    [(1.0, "bad"), (1.79, "bad"), (1.81, "poor"), (3.0, "fair"), (4.2, "excellent"), (5.0, "excellent")],
)
def test_level_words(mos: float, word: str) -> None:
    assert level_word(mos) == word


def test_target_uses_true_labels_where_there_are_any() -> None:
    known = example(appearance="blurred", severity="strong")
    assert target_text(known, mos=2.06, decimals=1, reasoning=True) == (
        "<think>blurred, strong</think><answer>2.1</answer>"
    )
    assert (
        target_text(example(), mos=2.0, decimals=2, reasoning=True)
        == "<think>poor</think><answer>2.00</answer>"
    )
    assert target_text(known, mos=2.06, decimals=0, reasoning=False) == "<think></think><answer>2</answer>"


@pytest.mark.parametrize(("mos", "written"), [(7.0, 5.0), (-2.0, 1.0), (3.44, 3.4)])
def test_targets_stay_in_range_and_parse(mos: float, written: float) -> None:
    text = target_text(example(), mos=mos, decimals=1, reasoning=True)
    assert parse_answer(text, form="score", rule="strict").score == written


def test_every_think_text_is_known_to_the_tokenizer() -> None:
    texts = reasoning_texts()
    assert {*LEVELS, "blurred, strong", "flat, faint"} <= set(texts)
    assert len(texts) == len(set(texts))
