from __future__ import annotations

from pathlib import Path

import pytest

from qhk.data.distortions import descriptions
from qhk.tasks import Task
from qhk.tasks.forms.comparison import CHOICES
from qhk.tasks.task import LEVELS, ScoreTask, level_word
from qhk.types import Answer, Example
from tests.tasks.builders import EVERY_RULE, task_of


def example(mos: float | None = 3.0, **labels: str | float) -> Example:
    return Example(
        id="a", dataset="s", image=Path("a"), mos=mos, mos_native=mos, higher_is_better=True, labels=labels
    )


def write(task: Task, answer: Answer, *, decimals: int = 1, reasoning: bool = True, **labels: str) -> str:
    return task.text_to_teach(answer, decimals=decimals, reasoning=reasoning, labels=labels)


@pytest.mark.parametrize(
    ("mos", "word"),
    [(1.0, "bad"), (1.79, "bad"), (1.81, "poor"), (3.0, "fair"), (4.2, "excellent"), (5.0, "excellent")],
)
def test_level_words(mos: float, word: str) -> None:
    assert level_word(mos) == word


def test_layouts() -> None:
    score, json = task_of("score", "strict"), task_of("score", "json")
    two = Answer(score=2.06)
    assert write(score, two, appearance="blurred", severity="strong") == (
        "<think>blurred, strong</think><answer>2.1</answer>"
    )
    assert write(score, two, decimals=2) == "<think>poor</think><answer>2.06</answer>"
    assert write(score, two, decimals=0, reasoning=False) == "<think></think><answer>2</answer>"
    assert write(json, two) == '<think>poor</think><answer>{"rating": 2.1}</answer>'
    damage = Answer(score=None, labels={"distortion_class": "blur", "severity": "slight"})
    assert write(task_of("degradation", "json"), damage) == (
        '<think>blurred</think><answer>{"distortion_class": "blur", "severity": "slight"}</answer>'
    )
    choice = Answer(score=None, labels={"choice": "Image B"})
    assert write(task_of("comparison", "choice"), choice) == (
        "<think>B is cleaner</think><answer>Image B</answer>"
    )
    video = Answer(score=2.0, aspects=(1.0, 3.0))
    assert write(task_of("video", "lines"), video) == "<think>poor</think><answer>1.0\n3.0</answer>"


@pytest.mark.parametrize(("form", "rule"), EVERY_RULE)
@pytest.mark.parametrize("reasoning", [True, False])
def test_every_rule_reads_back_what_is_taught(form: str, rule: str, reasoning: bool) -> None:
    task = task_of(form, rule)
    if not isinstance(task, ScoreTask):
        answers = task.possible_answers()
        assert [task.parse(write(task, answer, reasoning=reasoning)) for answer in answers] == answers
        return
    for first in (-2.0, 1.0, 3.44, 7.0):
        numbers = tuple(first + 0.3 * place for place in range(max(1, task.num_aspects)))
        written = tuple(round(min(5.0, max(1.0, number)), 1) for number in numbers)
        answer = task.parse(write(task, task.answer_of(numbers), reasoning=reasoning))
        assert answer.score == pytest.approx(sum(written) / len(written))
        assert answer.numbers == written
        assert len(answer.aspects) == task.num_aspects


def test_true_answers() -> None:
    assert task_of("score", "strict").true_answer(example(3.5)) == Answer(score=3.5)
    assert task_of("multi_aspect", "lines").true_answer(example(3.5)).aspects == (3.5,) * 5
    words = {"distortion_class": "noise", "severity": "slight"}
    assert task_of("degradation", "json").true_answer(example(None, **words, other="x")).labels == words
    with pytest.raises(ValueError, match=r"a of s has no score, which task\.form=video asks about"):
        task_of("video", "lines").check_examples([example(2.0), example(None)])
    with pytest.raises(ValueError, match="a of s has no label choice"):
        task_of("comparison", "choice").check_examples([example(2.0)])


def test_possible_answers() -> None:
    choices = [answer.labels["choice"] for answer in task_of("comparison", "choice").possible_answers()]
    assert choices == [*CHOICES]
    assert len(task_of("comparison", "choice_of_two").possible_answers()) == 2
    assert len(task_of("degradation", "json").possible_answers()) == 21
    assert task_of("score", "strict").possible_answers() == []


def test_what_is_thought_never_betrays_the_truth() -> None:
    wrong = Answer(score=None, labels={"distortion_class": "noise", "severity": "slight"})
    truth = {"distortion_class": "blur", "severity": "serious", "appearance": "blurred"}
    assert task_of("degradation", "json").thought(wrong, truth) == "noisy"


def test_the_vocabulary_holds_every_word() -> None:
    def vocabulary(form: str, rule: str) -> list[str]:
        return task_of(form, rule).vocabulary(descriptions())

    texts = vocabulary("score", "strict")
    assert {*LEVELS, "blurred, strong", "flat, faint"} <= set(texts)
    assert not any("rating" in text for text in texts)
    assert '{"rating": 3}' in vocabulary("score", "json")
    assert {"B is cleaner", "Similar"} <= set(vocabulary("comparison", "choice"))
    assert "Similar" not in vocabulary("comparison", "choice_of_two")
    for form, rule in EVERY_RULE:
        texts = vocabulary(form, rule)
        assert texts == sorted(set(texts))
