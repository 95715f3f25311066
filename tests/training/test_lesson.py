"""The lesson: which tokens stand in an answer is looked up where the task's own rule reads."""

from __future__ import annotations

from typing import Any

import torch

from qhk.objective.aggregate import Counts
from qhk.rollout.group import Group
from qhk.training.credit import Credit
from qhk.training.distributed import Processes
from qhk.training.lesson import make_lesson
from qhk.types import Answer, Completion
from tests.tasks.builders import task_of
from tests.training.test_credit import make_group

TEXT = "<answer>1</answer></think>3 <answer>22</answer>"
"""A release takes the first number in a tag, ours the last block behind the reasoning."""


class Letters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids.tolist()))


def asked(task: str) -> Group:
    group: Any = make_group(0, "set", 3.0, [1.0, 2.0])
    said = Completion(text=TEXT, answer=Answer(score=1.0), num_tokens=len(TEXT), truncated=False)
    values = {**vars(group), "task": task, "completions": [said, said]}
    values["completion_ids"] = [torch.tensor([ord(letter) for letter in TEXT])] * 2
    return Group(**values)


def test_answer_tokens_follow_each_tasks_rule() -> None:
    groups = [asked("ours"), asked("theirs")]
    credit = Credit(
        tasks=("ours", "theirs"),
        rewards=torch.zeros(2, 2),
        scores=torch.zeros(2, 2),
        breakdown={},
        weights=torch.ones(2),
        advantages=torch.zeros(2, 2),
        learns=torch.tensor([[True, True], [True, False]]),
        counts=Counts(sequences=4, tokens=4 * len(TEXT)),
        num_tokens=4 * len(TEXT),
        memory={},
    )
    spans = {
        "ours": task_of("score", "strict").answer_span,
        "theirs": task_of("score", "q_hawkeye_release").answer_span,
    }
    lesson = make_lesson(groups, credit, tokenizer=Letters(), spans=spans, processes=Processes("single"))
    assert lesson.answers is not None
    read = [["".join(TEXT[i] for i in tokens.nonzero()) for tokens in group] for group in lesson.answers]
    assert read == [["22", "22"], ["1", "1"]]
    assert lesson.counts.answer_tokens == 2 + 2 + 1
    without = make_lesson(groups, credit, tokenizer=None, spans=None, processes=Processes("single"))
    assert without.answers is None
