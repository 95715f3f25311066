"""What kind of distortion an image has and how strong it is, in words (Q-Insight)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from qhk.tasks.task import AnswerRule, LabelTask
from qhk.tasks.text import first_answer_anywhere, first_answer_span, flat_object, last_answer
from qhk.types import Answer

NONE = "null"
"""The word for the distortion and the severity of an undamaged image."""

DISTORTION_CLASSES = ("noise", "compression", "blur", "darken", NONE)
"""What an answer may name."""

SEVERITIES = ("slight", "moderate", "obvious", "serious", "catastrophic", NONE)
"""How strong the named degradation is, weakest first; ``null`` goes with an undamaged image."""

APPEARANCES = {
    "noise": "noisy",
    "compression": "blocky",
    "blur": "blurred",
    "darken": "dark",
    NONE: "clean",
}
"""What an image with a distortion class looks like, in a word."""

CLASS, SEVERITY = "distortion_class", "severity"
"""Names of the two labels."""

_VOCABULARY = {CLASS: DISTORTION_CLASSES, SEVERITY: SEVERITIES}
_RELEASE_LABEL = {name: re.compile(rf'"{name}"\s*+:\s*+"([^"]++)"') for name in _VOCABULARY}


def degradation_json(text: str) -> Answer:
    """Return class and severity in the last answer block after the reasoning, one JSON object (ours).

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
        word = NONE if found[name] is None else found[name]
        if not isinstance(word, str) or word not in words:
            return Answer(score=None, reason=f"unknown {name}")
        labels[name] = word
    return Answer(score=None, labels=labels)


def degradation_q_insight_release(text: str) -> Answer:
    """Return class and severity, quoted and in this order, in the first answer tag anywhere (Q-Insight).

    Reasoning included; whatever else stands in the tag, also between the two, and whatever separates them.
    The first class that is not empty counts, and the first such severity behind it. An unquoted null, an
    empty word and the other order are not read; words outside the vocabulary are, without the white space
    around them: they equal no label.
    """
    content = first_answer_anywhere(text)
    if content is None:
        return Answer(score=None, reason="no answer tag")
    labels, start = dict[str, str](), 0
    for name, pattern in _RELEASE_LABEL.items():
        match = pattern.search(content, start)
        if match is None:
            return Answer(score=None, reason="no class and severity")
        labels[name], start = match.group(1).strip(), match.end()
    return Answer(score=None, labels=labels)


class Degradation(LabelTask):
    """The distortion class and its severity, as one JSON object."""

    form = "degradation"
    rules = {
        "json": AnswerRule(degradation_json),
        "q_insight_release": AnswerRule(degradation_q_insight_release, first_answer_span),
    }
    labels = (CLASS, SEVERITY)
    metrics = {
        "accuracy": "accuracy",
        "distortion_class_accuracy": "distortion class",
        "severity_accuracy": "severity",
    }

    @staticmethod
    def is_measured(label: str, truth: Mapping[str, str]) -> bool:
        """Return False for the severity of an undamaged image, which cannot be right or wrong."""
        return label != SEVERITY or truth[label] != NONE

    def possible_answers(self) -> list[Answer]:
        return [
            Answer(score=None, labels={CLASS: word, SEVERITY: severity})
            for word in DISTORTION_CLASSES
            for severity in SEVERITIES
            if (word == NONE) == (severity == NONE)
        ]

    def thought(self, answer: Answer, labels: Mapping[str, str | float]) -> str:
        """Return what the named class looks like, whatever ``labels`` tell."""
        return APPEARANCES[answer.labels[CLASS]]

    def write(self, answer: Answer, *, decimals: int) -> str:
        return json.dumps({name: answer.labels[name] for name in self.labels})


TASK = Degradation
