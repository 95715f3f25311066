"""The one parser of answers: reward, uncertainty and evaluation all read an answer here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from qhk.errors import UserError
from qhk.rewards.answer_labels import (
    comparison_choice,
    comparison_q_insight_release,
    degradation_json,
    degradation_q_insight_release,
)
from qhk.rewards.answer_numbers import (
    aspects_lines,
    aspects_preresq_r1_release,
    preresq_r1_release_span,
    q_hawkeye_release_span,
    score_json,
    score_q_hawkeye_release,
    score_q_insight_release,
    score_strict,
    score_visualquality_r1_release,
    visualquality_r1_release_span,
)
from qhk.rewards.answer_text import answer_span, first_answer_span
from qhk.types import CHOICES, NUM_ASPECTS, Answer

Rule = Callable[[str], Answer]
"""Reads the text of one completion. Never raises, and takes time linear in its length."""

Span = Callable[[str], tuple[int, int] | None]
"""First character of the part of a text where a rule looks for the answer and the one behind its last, or
None where it finds no such part. Never empty; linear like a rule."""


def parse_answer(text: str, *, form: str, rule: str) -> Answer:
    """What a completion answers, as written: nothing is clipped, guessed or repaired.

    ``form`` is the task's, ``rule`` one of its named ways to read (``ANSWER_RULES``); each rule's function
    says exactly what it accepts. Ours read the last complete answer block after the reasoning, and it must
    hold the answer and nothing else: ``strict``, ``json``, ``lines``, ``choice``, ``choice_of_two``. Rules
    named after a release read what that release reads, reasoning included, so that an answer's letters can
    come from outside its block; where a release makes a score up (at random, or 3.0), nothing is read.

    Numbers of more than 64 characters and JSON of more than 256 are refused. Time is linear in the length of
    ``text``. Never raises on any text; ``ValueError`` on an unknown form or rule.
    """
    return find_rule(form, rule)(text)


def find_span(form: str, rule: str) -> Span:
    """Where a rule of a task's form looks; ``ValueError`` where there is no such rule.

    Ours, and a release that reads a tag, look at the whole content of that tag, blanks at its ends apart,
    whether or not it can be read; a release that takes numbers from the text looks at those numbers.
    """
    find_rule(form, rule)
    if rule == "preresq_r1_release":
        return partial(preresq_r1_release_span, count=NUM_ASPECTS[form])
    return _RELEASE_SPANS.get(rule, answer_span)


def find_rule(form: str, rule: str) -> Rule:
    """The function that reads answers of a task's form by a rule; ``ValueError`` where there is none."""
    rules = ANSWER_RULES.get(form)
    if rules is None:
        raise UserError(f"task.form: unknown form {form!r}; use one of {', '.join(ANSWER_RULES)}")
    if rule not in rules:
        raise UserError(
            f"task.answer_rule: unknown rule {rule!r} of form {form}; use one of {', '.join(rules)}"
        )
    return rules[rule]


def _aspect_rules(form: str) -> Mapping[str, Rule]:
    count = NUM_ASPECTS[form]
    return MappingProxyType(
        {
            "lines": partial(aspects_lines, count=count),
            "preresq_r1_release": partial(aspects_preresq_r1_release, count=count),
        }
    )


_RELEASE_SPANS: Mapping[str, Span] = MappingProxyType(
    {
        "q_hawkeye_release": q_hawkeye_release_span,
        "q_insight_release": first_answer_span,
        "visualquality_r1_release": visualquality_r1_release_span,
    }
)

ANSWER_RULES: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {
        "score": MappingProxyType(
            {
                "strict": score_strict,
                "json": score_json,
                "q_hawkeye_release": score_q_hawkeye_release,
                "q_insight_release": score_q_insight_release,
                "visualquality_r1_release": score_visualquality_r1_release,
            }
        ),
        "degradation": MappingProxyType(
            {"json": degradation_json, "q_insight_release": degradation_q_insight_release}
        ),
        "comparison": MappingProxyType(
            {
                "choice": partial(comparison_choice, choices=CHOICES),
                "choice_of_two": partial(comparison_choice, choices=CHOICES[:2]),
                "q_insight_release": comparison_q_insight_release,
            }
        ),
        "multi_aspect": _aspect_rules("multi_aspect"),
        "video": _aspect_rules("video"),
    }
)
"""Form of a task -> the named ways to read its answers. A new rule is a function of the text, added here."""
