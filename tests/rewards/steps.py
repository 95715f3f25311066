"""Steps for tests of whole options: texts of completions in, what every term of an option gives out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qhk.rewards.batch import scored_group
from qhk.rewards.term import CompletionTerm, RewardTerm, batch_values, completion_value
from qhk.types import Completion, Example
from tests.tasks.builders import parse_answer

Matrix = NDArray[np.float64]

TASKS = {
    **dict.fromkeys(("answer_only", "batch_correlation", "bell", "evoquality"), ("score", "strict")),
    **dict.fromkeys(("gaussian", "graded_format", "mr_iqa", "threshold_curriculum"), ("score", "strict")),
    "q_hawkeye": ("score", "strict"),
    "q_hawkeye_overlong": ("score", "strict"),
    "q_hawkeye_paper": ("score", "strict"),
    "q_hawkeye_release": ("score", "q_hawkeye_release"),
    "q_insight_score": ("score", "json"),
    "q_insight_score_release": ("score", "q_insight_release"),
    "q_insight_degradation": ("degradation", "json"),
    "q_insight_degradation_release": ("degradation", "q_insight_release"),
    "q_insight_comparison": ("comparison", "choice"),
    "q_insight_comparison_release": ("comparison", "q_insight_release"),
    "visualquality_r1": ("score", "strict"),
    "visualquality_r1_release": ("score", "visualquality_r1_release"),
    "preresq_r1_score": ("score", "strict"),
    "preresq_r1": ("multi_aspect", "lines"),
    "preresq_r1_exploration": ("multi_aspect", "lines"),
    "preresq_r1_stability": ("multi_aspect", "lines"),
    "preresq_r1_release": ("multi_aspect", "preresq_r1_release"),
    "preresq_r1_video": ("video", "lines"),
    "preresq_r1_video_release": ("video", "preresq_r1_release"),
}
"""Option -> form of the task and rule of the parser that it goes with."""


@dataclass(frozen=True)
class Step:
    """What a step sampled: the examples, and the texts of each one's answers."""

    examples: Sequence[Example]
    texts: Sequence[Sequence[str]]


def example(mos: float, labels: Mapping[str, str], dataset: str = "one") -> Example:
    return Example(
        id=f"{mos}",
        dataset=dataset,
        image=Path("one.png"),
        mos=mos,
        mos_native=mos,
        higher_is_better=True,
        labels=labels,
    )


def answer(content: str) -> str:
    return f"<think>\nx\n</think>\n<answer>\n{content}\n</answer>"


def breakdown(terms: Sequence[RewardTerm], step: Step, option: str) -> dict[str, Matrix]:
    """What every term gives, before its weight: (B, G)."""
    form, rule = TASKS[option]
    groups, completions = [], []
    for source, texts in zip(step.examples, step.texts, strict=True):
        answers = [parse_answer(text, form=form, rule=rule) for text in texts]
        completions.append(
            [
                Completion(text=text, answer=read, num_tokens=1, truncated=False)
                for text, read in zip(texts, answers, strict=True)
            ]
        )
        groups.append(scored_group(source, answers))
    values = {}
    for term in terms:
        if isinstance(term, CompletionTerm):
            rows = [
                [completion_value(term, one, source) for one in row]
                for source, row in zip(step.examples, completions, strict=True)
            ]
        else:
            rows = batch_values(term, groups)
        values[term.name] = np.array(rows)
    return values


def total(terms: Sequence[RewardTerm], values: Mapping[str, Matrix], *, but: str = "") -> Matrix:
    weighted = [term.weight * values[term.name] for term in terms if term.name != but]
    return np.sum(weighted, axis=0)  # type: ignore[no-any-return]
