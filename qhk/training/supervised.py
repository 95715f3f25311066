"""Supervised learning of answers: the cold start, and the control that reinforcement is held against."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qhk.objective.total import check_finite
from qhk.policy.head import read_head
from qhk.policy.load import Policy
from qhk.policy.packed import pack_tokens, packed_hidden
from qhk.policy.prompt import EncodedPrompt
from qhk.policy.tokenizer import TURN_END
from qhk.settings import task_views
from qhk.tasks import build_task
from qhk.tracking.metrics import MetricSet
from qhk.training.branches import HEAD_CHUNK
from qhk.training.inputs import StepPrompt
from qhk.training.optimizer import Coefficients, apply_gradients
from qhk.training.step import Learner


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One supervised example: a prompt and the answer to be learnt, end token included."""

    prompt: EncodedPrompt
    answer_ids: Tensor


def answer_ids(policy: Policy, text: str) -> Tensor:
    """(T,) ids of an answer as the policy should write it, with the end of the turn."""
    return torch.tensor(policy.tokenizer(text + TURN_END, add_special_tokens=False)["input_ids"])


def supervised_loss(policy: Policy, lessons: Sequence[Lesson], *, num_tokens: int) -> Tensor:
    """Negative log-likelihood of the lessons' answers in nats, divided by ``num_tokens``.

    ``num_tokens`` counts the answer tokens of the whole update, over processes: losses then add up.
    """
    answers = [[lesson.answer_ids] for lesson in lessons]
    tokens = pack_tokens(answers, device=policy.model.device)
    hidden = packed_hidden(policy.model, [lesson.prompt for lesson in lessons], answers, features=None)
    readout = read_head(
        policy.model.lm_head, hidden, tokens.targets, temperature=1.0, with_entropy=False, chunk=HEAD_CHUNK
    )
    return -readout.logprobs.sum() / num_tokens


def supervised_step(learner: Learner, prompts: Sequence[StepPrompt], *, now: Coefficients) -> MetricSet:
    """The metrics of one supervised step on the examples that a reinforcement step would have seen.

    The answers taught carry the examples' own opinion scores or labels, without noise: what the
    reinforcement reward is computed from, and nothing else. The think part follows from the same answer,
    also where the cold start named a score's distortion.
    """
    started, settings, views = time.perf_counter(), learner.settings, task_views(learner.settings)
    lessons = []
    for prompt in prompts:
        view = views[prompt.task]
        task = build_task(view.task)
        text = task.text_to_teach(
            task.true_answer(prompt.example),
            decimals=view.prompt.answer_decimals,
            reasoning=settings.cold_start.reasoning,
            labels={},
        )
        lessons.append(Lesson(prompt=prompt.prompt, answer_ids=answer_ids(learner.policy, text)))
    num_tokens = learner.processes.total(sum(len(lesson.answer_ids) for lesson in lessons))
    value, size = 0.0, settings.training.prompts_per_device
    with learner.processes.together():
        for start in range(0, len(lessons), size):
            loss = supervised_loss(learner.policy, lessons[start : start + size], num_tokens=num_tokens)
            check_finite({"supervised": (float(loss.detach()), 1)})
            loss.backward()  # type: ignore[no-untyped-call]
            value += float(loss.detach())
    learner.processes.sum_gradients(learner.policy.model.parameters())
    norm = apply_gradients(
        learner.policy.model,
        learner.optimizer,
        learning_rate=now.learning_rate,
        max_grad_norm=settings.optimizer.max_grad_norm,
    )
    metrics = MetricSet()
    metrics.add_sum("train/loss/total", value * learner.processes.count, 1.0)
    metrics.add("train/optimizer/learning_rate", now.learning_rate)
    metrics.add("train/optimizer/grad_norm", norm)
    metrics.add("time/step_s", time.perf_counter() - started)
    return metrics
