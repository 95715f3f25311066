"""What a task is, and its two kinds: answered in numbers, answered in words."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from qhk.errors import UserError
from qhk.tasks.answer_parser import answer_span
from qhk.types import MOS_HIGH, MOS_LOW, Answer, Example

Span = Callable[[str], tuple[int, int] | None]
"""Returns the first character of the part of a text where a rule looks for the answer and the one behind its
last, or None where it finds no such part. Never empty; linear like a rule."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")

LEVELS = ("bad", "poor", "fair", "good", "excellent")
"""Words for five equal parts of [1, 5], worst first."""


@dataclass(frozen=True)
class AnswerRule:
    """One way to read the answers of a form.

    ``parse`` reads the text of one completion: it never raises on any text, takes time linear in its length,
    and clips, guesses and repairs nothing. ``span`` is where it looks; the default is the whole content of
    the last answer tag after the reasoning, whether or not it can be read.
    """

    parse: Callable[[str], Answer]
    span: Span = answer_span


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """One task: its answer rule, the scale of its scores, and all that follows from the form of its answers.

    A subclass is a form. ``rules`` are the ways to read its answers, by name: ours read the last complete
    answer block after the reasoning, which must hold the answer and nothing else; rules named after a release
    read what that release reads, reasoning included, so that an answer's letters can come from outside its
    block (where a release makes a score up, at random or 3.0, nothing is read). ``labels`` are the names of
    an answer's words, in ``Example.labels`` and ``Answer.labels``; ``num_aspects`` counts its sub-scores.
    ``metrics`` are the main metrics of its evaluation with their headings in tables; the first one selects
    checkpoints. Building one raises ``UserError`` for an unknown rule.
    """

    answer_rule: str
    low: float
    high: float

    form: ClassVar[str]
    has_scores: ClassVar[bool]
    rules: ClassVar[Mapping[str, AnswerRule]]
    labels: ClassVar[tuple[str, ...]] = ()
    num_aspects: ClassVar[int] = 0
    metrics: ClassVar[Mapping[str, str]]

    def __post_init__(self) -> None:
        if self.answer_rule not in self.rules:
            raise UserError(
                f"answer_rule: unknown rule {self.answer_rule!r} of form {self.form}; "
                f"use one of {', '.join(self.rules)}"
            )

    @classmethod
    def answer_parts(cls) -> tuple[str, ...]:
        """Return what a readable answer has: ``score`` and perhaps ``aspects``, or its labels by name."""
        return cls.labels or (("score", "aspects") if cls.num_aspects else ("score",))

    @classmethod
    def headline_metric(cls) -> str:
        """Return the metric by which checkpoints are selected."""
        return next(iter(cls.metrics))

    @staticmethod
    def is_measured(label: str, truth: Mapping[str, str]) -> bool:
        """Return whether an image with these true labels counts in the accuracy of one of them."""
        return True

    def parse(self, text: str) -> Answer:
        """Return what a completion answers, as written. Never raises; linear in the length of ``text``."""
        return self.rules[self.answer_rule].parse(text)

    def answer_span(self, text: str) -> tuple[int, int] | None:
        """Return where ``parse`` looks: the first character and the one behind the last; None for nowhere."""
        return self.rules[self.answer_rule].span(text)

    @abstractmethod
    def true_answer(self, example: Example) -> Answer:
        """Return an example's own answer. Raises ``UserError`` naming the example where it has none."""

    def check_examples(self, examples: Iterable[Example]) -> None:
        """Raise ``UserError`` at the first example that lacks what the task asks about."""
        for example in examples:
            self.true_answer(example)

    def possible_answers(self) -> list[Answer]:
        """Return every answer in words that the task allows; none of a task answered in numbers."""
        return []

    def possible_scores(self, *, decimals: int) -> dict[str, float]:
        """Return every number that the task allows, as it is written; none of a task answered in words."""
        return {}

    def number_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where the numbers that ``parse`` reads stand in the text; empty where that is nowhere."""
        return []

    def text_to_teach(
        self, answer: Answer, *, decimals: int, reasoning: bool, labels: Mapping[str, str | float]
    ) -> str:
        """Return a completion that says ``answer``: ``<think>blurred, strong</think><answer>2.1</answer>``.

        Its answer is what the rule reads back: numbers have ``decimals`` digits and are clipped to [1, 5].
        With ``reasoning`` the think part says ``thought``, else it is empty. Supervision to disclose: where
        ``labels``, the example's own, tell a score's distortion (kadid, csiq, tid2013), the words are the
        true type and level; everywhere else they follow from ``answer`` and add nothing to it.
        """
        thought = self.thought(answer, labels) if reasoning else ""
        return f"<think>{thought}</think><answer>{self.write(answer, decimals=decimals)}</answer>"

    @abstractmethod
    def thought(self, answer: Answer, labels: Mapping[str, str | float]) -> str:
        """Return the words of the think part of a text to teach."""

    @abstractmethod
    def write(self, answer: Answer, *, decimals: int) -> str:
        """Return the content of the answer tag of a text to teach."""

    @abstractmethod
    def vocabulary(self, descriptions: Iterable[str]) -> list[str]:
        """Return what a tiny tokenizer has to know of the texts to teach, single numbers apart.

        ``descriptions`` are the distortions that data sets tell, such as ``blurred, strong``.
        """


class ScoreTask(Task):
    """A task answered in numbers: one score, or several sub-scores whose mean is the score."""

    has_scores = True
    metrics = {"srcc": "SRCC", "plcc": "PLCC", "plcc_fitted": "PLCC fitted"}

    def true_answer(self, example: Example) -> Answer:
        """Return the example's mos, and the same for every sub-score: no set says more."""
        if example.mos is None:
            raise UserError(
                f"{example.id} of {example.dataset} has no score, which task.form={self.form} asks about: "
                "choose a set that has scores"
            )
        return self.answer_of((example.mos,) * max(1, self.num_aspects))

    def answer_of(self, numbers: Sequence[float]) -> Answer:
        """Return the answer that says these numbers, in the order of ``Answer.numbers``."""
        (score,) = numbers
        return Answer(score=score)

    def possible_scores(self, *, decimals: int) -> dict[str, float]:
        """Return the numbers from ``low`` to ``high`` with at most ``decimals`` decimals, by their text.

        Fewer decimals are further ways to write some of them: ``3``, ``3.0`` and ``3.00`` are all there.
        """
        return {
            text: float(text)
            for places in range(decimals + 1)
            for step in range(
                math.ceil(round(self.low * 10**places, 6)), math.floor(round(self.high * 10**places, 6)) + 1
            )
            for text in [f"{step / 10**places:.{places}f}"]
        }

    def number_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where the answer's numbers stand: the first of successive numbers with just their values.

        Empty where the answer cannot be read, and where a release's rule made numbers out of others.
        """
        span, wanted = self.answer_span(text), self.parse(text).numbers
        if span is None or not wanted:
            return []
        found = list(_NUMBER.finditer(text, *span))
        values = [float(match.group()) for match in found]
        for start in range(len(found) - len(wanted) + 1):
            if tuple(values[start : start + len(wanted)]) == wanted:
                return [match.span() for match in found[start : start + len(wanted)]]
        return []

    def thought(self, answer: Answer, labels: Mapping[str, str | float]) -> str:
        """Return the level word of the mean score."""
        return level_word(fmean(map(_clipped, answer.numbers)))

    def write(self, answer: Answer, *, decimals: int) -> str:
        """Return one number per line."""
        return "\n".join(f"{_clipped(number):.{decimals}f}" for number in answer.numbers)

    def vocabulary(self, descriptions: Iterable[str]) -> list[str]:
        return sorted(LEVELS)


class LabelTask(Task):
    """A task answered in words: a label, or several that belong together."""

    has_scores = False

    def true_answer(self, example: Example) -> Answer:
        """Return the example's labels."""
        words = {}
        for name in self.labels:
            word = example.labels.get(name)
            if not isinstance(word, str):
                raise UserError(
                    f"{example.id} of {example.dataset} has no label {name}, "
                    f"which task.form={self.form} asks about: choose a set that has it"
                )
            words[name] = word
        return Answer(score=None, labels=words)

    def vocabulary(self, descriptions: Iterable[str]) -> list[str]:
        answers = self.possible_answers()
        thoughts = {self.thought(answer, {}) for answer in answers}
        return sorted(thoughts | {self.write(answer, decimals=0) for answer in answers})


def level_word(mos: float) -> str:
    """Return the word for ``mos`` in [1, 5]: five equal parts, a boundary belongs to the better word."""
    share = (mos - MOS_LOW) / (MOS_HIGH - MOS_LOW)
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def _clipped(score: float) -> float:
    return min(MOS_HIGH, max(MOS_LOW, score))
