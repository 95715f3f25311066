"""Which tokens stand in an answer is looked up where the task's own rule reads."""

from __future__ import annotations

from dataclasses import replace

import torch

from qhk.objective.aggregate import Counts
from qhk.rollout.decode import Group
from qhk.training.distributed import Processes
from qhk.training.step import find_answers
from qhk.types import Answer, Completion
from tests.tasks.builders import task_of
from tests.training.test_advantages import make_batch

TEXT = "<answer>1</answer></think>3 <answer>22</answer>"
"""A release takes the first number in a tag, ours the last block behind the reasoning."""


class Letters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        return "".join(map(chr, ids.tolist()))


def test_answer_tokens_follow_each_tasks_rule() -> None:
    said = Completion(text=TEXT, answer=Answer(score=1.0), num_tokens=len(TEXT), truncated=False)
    ids = torch.tensor([ord(letter) for letter in TEXT])
    group = Group(completion_ids=[ids] * 2, logprobs=[], truncated=[False] * 2)
    batch = replace(
        make_batch([("set", 3.0, (1.0, 2.0))] * 2),
        tasks=["ours", "theirs"],
        groups=[group, group],
        completions=[[said, said]] * 2,
        rewards=torch.zeros(2, 2),
        loss_mask=torch.tensor([[True, True], [True, False]]),
        counts=Counts(sequences=4, tokens=4 * len(TEXT)),
    )
    tasks = {"ours": task_of("score", "strict"), "theirs": task_of("score", "q_hawkeye_release")}
    found = find_answers(batch, tokenizer=Letters(), tasks=tasks, processes=Processes("single"))
    read = [["".join(TEXT[i] for i in mask.nonzero()) for mask in masks] for masks in found.answer_masks]
    assert read == [["22", "22"], ["1", "1"]]
    assert found.counts.answer_tokens == 2 + 2 + 1
    turned = find_answers(
        batch.in_order([1, 0]), tokenizer=Letters(), tasks=tasks, processes=Processes("single")
    )
    assert turned.counts.answer_tokens == 2 + 2 + 1, "who learns follows the index"
