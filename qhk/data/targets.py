"""The answers that a cold start imitates, by the task's form and the rule that reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from qhk.data.distortions import CSIQ_TYPES, KADID_TYPES, SEVERITIES, TID_TYPES
from qhk.errors import UserError
from qhk.types import ANSWER_LABELS, CHOICES, DISTORTION_CLASSES, MOS_HIGH, MOS_LOW, NUM_ASPECTS, Example
from qhk.types import SEVERITIES as ANSWER_SEVERITIES

LEVELS = ("bad", "poor", "fair", "good", "excellent")
"""Words for five equal parts of [1, 5], worst first."""

APPEARANCES = {
    "noise": "noisy",
    "compression": "blocky",
    "blur": "blurred",
    "darken": "dark",
    "null": "clean",
}
"""What a picture with a distortion class looks like, in a word."""

REASONS = {"Image A": "A is cleaner", "Image B": "B is cleaner", "Similar": "both alike"}
"""What is thought before a choice."""

RATING = "rating"
"""Key of a score in JSON (Q-Insight)."""

_JSON_RULES = ("json", "q_insight_release")
_NO_SIMILAR_RULE = "choice_of_two"


@dataclass(frozen=True, kw_only=True)
class Taught:
    """What an answer says: ``scores`` in [1, 5] (one, or one per sub-score), or ``words`` by label."""

    scores: tuple[float, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)


def true_answer(example: Example, *, form: str) -> Taught:
    """The example's own answer: its labels where the form is answered in words, else its mos.

    Every sub-score is the mos: no set says more. Raises ``ValueError`` naming the example when it lacks the
    score or the label.
    """
    if form not in ANSWER_LABELS and example.mos is None:
        raise UserError(
            f"{example.id} of {example.dataset} has no score, which task.form={form} asks about: "
            "choose a set that has scores"
        )
    if form not in ANSWER_LABELS:
        return Taught(scores=(example.opinion,) * NUM_ASPECTS.get(form, 1))
    words = {}
    for name in ANSWER_LABELS[form]:
        word = example.labels.get(name)
        if not isinstance(word, str):
            raise UserError(
                f"{example.id} of {example.dataset} has no label {name}, which task.form={form} asks about: "
                "choose a set that has it"
            )
        words[name] = word
    return Taught(words=words)


def check_answers(form: str, examples: Iterable[Example]) -> None:
    """None; ``ValueError`` at the first example that lacks what a task of this form asks about."""
    for example in examples:
        true_answer(example, form=form)


def possible_words(*, form: str, rule: str) -> list[dict[str, str]]:
    """Every answer of a form that is answered in words, each by label; none for other forms."""
    if form == "comparison":
        (name,) = ANSWER_LABELS[form]
        return [{name: choice} for choice in CHOICES if choice != "Similar" or rule != _NO_SIMILAR_RULE]
    if form == "degradation":
        kind, severity = ANSWER_LABELS[form]
        return [
            {kind: word, severity: strength}
            for word in DISTORTION_CLASSES
            for strength in ANSWER_SEVERITIES
            if (word == "null") == (strength == "null")
        ]
    return []


def target_text(
    taught: Taught, *, form: str, rule: str, decimals: int, reasoning: bool, labels: Mapping[str, str | float]
) -> str:
    """What a cold start teaches: ``<think>blurred, strong</think><answer>2.1</answer>``.

    The answer is what ``rule`` reads back as ``taught``: a number with ``decimals`` digits, clipped to
    [1, 5]; ``{"rating": 2.1}``; class and severity in JSON; a choice; or one number per line. With
    ``reasoning`` the think part holds ``reasoning_words``, else it is empty. Supervision to disclose:
    where ``labels``, the example's own, tell a score's distortion (kadid, csiq, tid2013), the words are the
    true type and level; everywhere else they follow from ``taught`` and add nothing to the answer.
    """
    words = reasoning_words(taught, form=form, labels=labels) if reasoning else ""
    return (
        f"<think>{words}</think><answer>{_answer(taught, form=form, rule=rule, decimals=decimals)}</answer>"
    )


def reasoning_words(taught: Taught, *, form: str, labels: Mapping[str, str | float]) -> str:
    """The think part of an answer.

    Degradation: what the taught class looks like. Comparison: which is cleaner. Score: ``appearance,
    severity`` where ``labels`` tell both. Else the level word of the mean score.
    """
    if form == "degradation":
        return APPEARANCES[taught.words[ANSWER_LABELS[form][0]]]
    if form == "comparison":
        return REASONS[taught.words[ANSWER_LABELS[form][0]]]
    appearance, severity = labels.get("appearance"), labels.get("severity")
    if form == "score" and isinstance(appearance, str) and isinstance(severity, str):
        return f"{appearance}, {severity}"
    return level_word(fmean(_clipped(taught.scores)))


def level_word(mos: float) -> str:
    """The word for ``mos`` in [1, 5]: five equal parts, a boundary belongs to the better word."""
    share = (mos - MOS_LOW) / (MOS_HIGH - MOS_LOW)
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))]


def taught_texts(*, form: str, rule: str) -> list[str]:
    """What a tiny tokenizer has to know of a task's answers, numbers apart: think parts and word answers."""
    options = [Taught(words=words) for words in possible_words(form=form, rule=rule)]
    if options:
        thoughts = {reasoning_words(option, form=form, labels={}) for option in options}
        return sorted(thoughts | {_answer(option, form=form, rule=rule, decimals=0) for option in options})
    if form != "score":
        return sorted(LEVELS)
    kinds = (*KADID_TYPES.values(), *TID_TYPES.values(), *CSIQ_TYPES.values())
    appearances = {appearance for _, appearance in kinds}
    thoughts = {f"{appearance}, {severity}" for appearance in appearances for severity in SEVERITIES}
    ratings = {_answer(Taught(scores=(score,)), form=form, rule=rule, decimals=0) for score in range(1, 6)}
    return sorted(thoughts | {*LEVELS} | (ratings if rule in _JSON_RULES else set()))


def _answer(taught: Taught, *, form: str, rule: str, decimals: int) -> str:
    if form == "comparison":
        return taught.words[ANSWER_LABELS[form][0]]
    if form == "degradation":
        return json.dumps({name: taught.words[name] for name in ANSWER_LABELS[form]})
    numbers = [f"{score:.{decimals}f}" for score in _clipped(taught.scores)]
    if form == "score" and rule in _JSON_RULES:
        return f'{{"{RATING}": {numbers[0]}}}'
    return "\n".join(numbers)


def _clipped(scores: Sequence[float]) -> list[float]:
    return [min(MOS_HIGH, max(MOS_LOW, score)) for score in scores]
