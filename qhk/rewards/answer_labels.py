"""Rules that read answers in words; ``qhk.rewards.answer`` is the door to them."""

from __future__ import annotations

import re
from collections.abc import Collection

from qhk.rewards.answer_text import first_answer_anywhere, flat_object, last_answer
from qhk.types import ANSWER_LABELS, CHOICES, DISTORTION_CLASSES, SEVERITIES, Answer

_CLASS, _SEVERITY = ANSWER_LABELS["degradation"]
_VOCABULARY = {_CLASS: DISTORTION_CLASSES, _SEVERITY: SEVERITIES}
(_CHOICE,) = ANSWER_LABELS["comparison"]
_RELEASE_CLASS = re.compile(rf'"{_CLASS}"\s*+:\s*+"([^"]*+)"\s*+,\s*+"{_SEVERITY}"\s*+:\s*+"([^"]*+)"')


def degradation_json(text: str) -> Answer:
    """Class and severity in the last answer block after the reasoning, which must be one JSON object (ours).

    ``{"distortion_class": "blur", "severity": "slight"}``: exactly these keys in any order, each with a word
    of its vocabulary in lower case; JSON's ``null`` is the word ``"null"``. A class without a severity, or
    the other way round, is read as it stands: it is a wrong answer, not an unreadable one. A code fence and
    repeated keys are refused.
    """
    content, reason = last_answer(text)
    if content is None:
        return Answer(score=None, reason=reason)
    found = flat_object(content)
    if found is None or {*found} != {*_VOCABULARY}:
        return Answer(score=None, reason="not class and severity in JSON")
    labels = {}
    for name, words in _VOCABULARY.items():
        word = "null" if found[name] is None else found[name]
        if not isinstance(word, str) or word not in words:
            return Answer(score=None, reason=f"unknown {name}")
        labels[name] = word
    return Answer(score=None, labels=labels)


def degradation_q_insight_release(text: str) -> Answer:
    """Class and severity as quoted strings, in this order, in the first answer tag anywhere (Q-Insight).

    Reasoning included; whatever else stands in the tag. An unquoted null and the other order are not read;
    words outside the vocabulary are, as written: they equal no label.
    """
    content = first_answer_anywhere(text)
    if content is None:
        return Answer(score=None, reason="no answer tag")
    match = _RELEASE_CLASS.search(content)
    if match is None:
        return Answer(score=None, reason="no class and severity")
    return Answer(score=None, labels={_CLASS: match.group(1), _SEVERITY: match.group(2)})


def comparison_choice(text: str, *, choices: Collection[str]) -> Answer:
    """The last answer block after the reasoning, letter for letter one of ``choices`` (ours)."""
    content, reason = last_answer(text)
    if content is None:
        return Answer(score=None, reason=reason)
    if content not in choices:
        return Answer(score=None, reason="not a choice")
    return Answer(score=None, labels={_CHOICE: content})


def comparison_q_insight_release(text: str) -> Answer:
    """The first answer tag anywhere, apart from white space exactly one of the three choices (Q-Insight)."""
    content = first_answer_anywhere(text)
    if content is None:
        return Answer(score=None, reason="no answer tag")
    if content.strip() not in CHOICES:
        return Answer(score=None, reason="not a choice")
    return Answer(score=None, labels={_CHOICE: content.strip()})
