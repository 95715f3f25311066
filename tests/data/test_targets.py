from __future__ import annotations

from pathlib import Path

import pytest

from qhk.data.targets import (
    LEVELS,
    Taught,
    check_answers,
    level_word,
    possible_words,
    reasoning_words,
    target_text,
    taught_texts,
    true_answer,
)
from qhk.rewards.answer import ANSWER_RULES, parse_answer
from qhk.types import CHOICES, NUM_ASPECTS, Example

EVERY_RULE = [(form, rule) for form, rules in ANSWER_RULES.items() for rule in rules]


def example(mos: float | None = 3.0, **labels: str | float) -> Example:
    return Example(
        id="a", dataset="s", image=Path("a"), mos=mos, mos_native=mos, higher_is_better=True, labels=labels
    )


def write(taught: Taught, form: str, rule: str, *, decimals: int = 1, reasoning: bool = True) -> str:
    return target_text(taught, form=form, rule=rule, decimals=decimals, reasoning=reasoning, labels={})


@pytest.mark.parametrize(
    ("mos", "word"),
    [(1.0, "bad"), (1.79, "bad"), (1.81, "poor"), (3.0, "fair"), (4.2, "excellent"), (5.0, "excellent")],
)
def test_level_words(mos: float, word: str) -> None:
    assert level_word(mos) == word


def test_layouts() -> None:
    labels = {"appearance": "blurred", "severity": "strong"}
    score = Taught(scores=(2.06,))
    assert target_text(
        score, form="score", rule="strict", decimals=1, reasoning=True, labels=labels
    ) == "<think>blurred, strong</think><answer>2.1</answer>"  # fmt: skip
    assert write(score, "score", "strict", decimals=2) == "<think>poor</think><answer>2.06</answer>"
    assert write(score, "score", "strict", decimals=0, reasoning=False) == "<think></think><answer>2</answer>"
    assert write(score, "score", "json") == '<think>poor</think><answer>{"rating": 2.1}</answer>'
    damage = Taught(words={"distortion_class": "blur", "severity": "slight"})
    assert write(damage, "degradation", "json") == (
        '<think>blurred</think><answer>{"distortion_class": "blur", "severity": "slight"}</answer>'
    )
    choice = Taught(words={"choice": "Image B"})
    assert write(choice, "comparison", "choice") == "<think>B is cleaner</think><answer>Image B</answer>"
    video = Taught(scores=(1.0, 3.0))
    assert write(video, "video", "lines") == "<think>poor</think><answer>1.0\n3.0</answer>"


@pytest.mark.parametrize(("form", "rule"), EVERY_RULE)
@pytest.mark.parametrize("reasoning", [True, False])
def test_every_rule_reads_back_what_is_taught(form: str, rule: str, reasoning: bool) -> None:
    for words in possible_words(form=form, rule=rule):
        answer = parse_answer(
            write(Taught(words=words), form, rule, reasoning=reasoning), form=form, rule=rule
        )
        assert answer.labels == words
    if possible_words(form=form, rule=rule):
        return
    for first in (-2.0, 1.0, 3.44, 7.0):
        scores = tuple(first + 0.3 * place for place in range(NUM_ASPECTS.get(form, 1)))
        written = [round(min(5.0, max(1.0, score)), 1) for score in scores]
        answer = parse_answer(
            write(Taught(scores=scores), form, rule, reasoning=reasoning), form=form, rule=rule
        )
        assert answer.score == pytest.approx(sum(written) / len(written))
        assert list(answer.aspects) == (written if len(written) > 1 else [])


def test_true_answers() -> None:
    assert true_answer(example(3.5), form="score").scores == (3.5,)
    assert true_answer(example(3.5), form="multi_aspect").scores == (3.5,) * 5
    words = {"distortion_class": "noise", "severity": "slight"}
    assert true_answer(example(None, **words, other="x"), form="degradation").words == words
    with pytest.raises(ValueError, match=r"a of s has no score, which task\.form=video asks about"):
        check_answers("video", [example(2.0), example(None)])
    with pytest.raises(ValueError, match="a of s has no label choice"):
        check_answers("comparison", [example(2.0)])


def test_possible_words() -> None:
    assert [words["choice"] for words in possible_words(form="comparison", rule="choice")] == [*CHOICES]
    assert len(possible_words(form="comparison", rule="choice_of_two")) == 2
    assert len(possible_words(form="degradation", rule="json")) == 21
    assert possible_words(form="score", rule="strict") == []


def test_what_is_thought_never_betrays_the_truth() -> None:
    wrong = Taught(words={"distortion_class": "noise", "severity": "slight"})
    truth = {"distortion_class": "blur", "severity": "serious", "appearance": "blurred"}
    assert reasoning_words(wrong, form="degradation", labels=truth) == "noisy"


def test_the_tokenizer_hears_of_every_word() -> None:
    texts = taught_texts(form="score", rule="strict")
    assert {*LEVELS, "blurred, strong", "flat, faint"} <= set(texts)
    assert not any("rating" in text for text in texts)
    assert '{"rating": 3}' in taught_texts(form="score", rule="json")
    assert {"B is cleaner", "Similar"} <= set(taught_texts(form="comparison", rule="choice"))
    assert "Similar" not in taught_texts(form="comparison", rule="choice_of_two")
    for form, rule in EVERY_RULE:
        texts = taught_texts(form=form, rule=rule)
        assert texts == sorted(set(texts))
