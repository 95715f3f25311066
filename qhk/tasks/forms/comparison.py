"""Which of two images is the better one, or whether they are alike (Q-Insight)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from qhk.tasks.answer_parser import first_answer_anywhere, first_answer_span, last_answer
from qhk.tasks.task import AnswerRule, LabelTask
from qhk.types import Answer

CHOICES = ("Image A", "Image B", "Similar")
"""Which image is better. Without a reference, ``Similar`` is not on offer."""

REASONS = {"Image A": "A is cleaner", "Image B": "B is cleaner", "Similar": "both alike"}
"""What is thought before a choice."""

CHOICE = "choice"
"""Name of the label."""


def comparison_choice(text: str, *, choices: Collection[str]) -> Answer:
    """Return the choice that the last answer block after the reasoning is, letter for letter (ours)."""
    content, reason = last_answer(text)
    if content is None:
        return Answer(score=None, reason=reason)
    if content not in choices:
        return Answer(score=None, reason="not a choice")
    return Answer(score=None, labels={CHOICE: content})


def comparison_q_insight_release(text: str) -> Answer:
    """Return the choice that the first answer tag anywhere is, white space apart (Q-Insight)."""
    content = first_answer_anywhere(text)
    if content is None:
        return Answer(score=None, reason="no answer tag")
    if content.strip() not in CHOICES:
        return Answer(score=None, reason="not a choice")
    return Answer(score=None, labels={CHOICE: content.strip()})


class Comparison(LabelTask):
    """The choice, letter for letter."""

    form = "comparison"
    rules = {
        "choice": AnswerRule(partial(comparison_choice, choices=CHOICES)),
        "choice_of_two": AnswerRule(partial(comparison_choice, choices=CHOICES[:2])),
        "q_insight_release": AnswerRule(comparison_q_insight_release, first_answer_span),
    }
    labels = (CHOICE,)
    metrics = {"accuracy": "accuracy"}

    def possible_answers(self) -> list[Answer]:
        choices = CHOICES[:2] if self.answer_rule == "choice_of_two" else CHOICES
        return [Answer(score=None, labels={CHOICE: choice}) for choice in choices]

    def thought(self, answer: Answer, labels: Mapping[str, str | float]) -> str:
        """Return which image is cleaner, according to the answer."""
        return REASONS[answer.labels[CHOICE]]

    def write(self, answer: Answer, *, decimals: int) -> str:
        return answer.labels[CHOICE]


TASK = Comparison
