"""Rewards for answers in words: whether they are the true ones (Q-Insight)."""

from __future__ import annotations

from qhk.errors import UserError
from qhk.tasks.forms.comparison import CHOICE
from qhk.tasks.forms.degradation import CLASS, SEVERITY
from qhk.types import Completion, Example

NEEDS = {"degradation_labels": (CLASS, SEVERITY), "comparison_label": (CHOICE,)}
"""What an answer must have, by reward."""


def degradation_labels(
    completion: Completion, example: Example, *, class_reward: float, severity_reward: float
) -> float:
    """Return ``class_reward`` for the true class, plus ``severity_reward`` if the severity is true too.

    The severity alone earns nothing; an answer that was not read earns 0. ``UserError`` where the example
    has no such labels. Source: Q-Insight (arXiv 2503.22679), paper and release, 0.25 and 0.75.
    """
    kind, severity = _true_label(example, CLASS), _true_label(example, SEVERITY)
    answered = completion.answer.labels
    if answered.get(CLASS) != kind:
        return 0.0
    return class_reward + (severity_reward if answered.get(SEVERITY) == severity else 0.0)


def comparison_label(completion: Completion, example: Example) -> float:
    """Return 1 for the true choice, 0 for another and for an answer that was not read.

    ``UserError`` where the example has no such label. Source: Q-Insight, paper and release.
    """
    return float(completion.answer.labels.get(CHOICE) == _true_label(example, CHOICE))


def _true_label(example: Example, name: str) -> str | float:
    if name not in example.labels:
        known = ", ".join(example.labels) or "none"
        raise UserError(
            f"data: example {example.id} of {example.dataset} has no label {name} (it has {known}); "
            "choose a data set made for this task"
        )
    return example.labels[name]
