"""One supervised step: what the cold start learns by, and the control that reinforcement is held against."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from qhk.objective.total import check_finite
from qhk.policy.adapter import adapter_dropout
from qhk.policy.load import Policy
from qhk.policy.packed import encode_images, pack_groups
from qhk.settings.views import task_views
from qhk.tracking.metrics import MetricSet
from qhk.training.batch import Batch
from qhk.training.forward import micro_slices, token_logprobs
from qhk.training.optimizer import Coefficients
from qhk.training.sharding import backward, run_in_forward
from qhk.training.step import Learner, apply_update


def answer_ids(policy: Policy, text: str) -> Tensor:
    """Return (T,) ids of an answer as the policy should write it, with the end of the turn."""
    ids = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor([*ids, policy.end_tokens[0]])


def supervised_loss(policy: Policy, batch: Batch, *, num_tokens: int) -> Tensor:
    """Return the negative log-likelihood of the batch's answers in nats, divided by ``num_tokens``.

    ``num_tokens`` counts the answer tokens of the whole update, over processes: losses then add up.
    """
    packed = pack_groups(batch.prompts, [[answer] for answer in batch.answers], device=policy.model.device)
    features = encode_images(policy.model, batch.prompts)
    return -token_logprobs(policy.model, packed, features, temperature=1.0).sum() / num_tokens


def supervised_step(learner: Learner, batch: Batch, *, now: Coefficients) -> MetricSet:
    """Return the metrics of one supervised step on the examples that a reinforcement step would have seen.

    The answers taught carry the examples' own opinion scores or labels, without noise: what the
    reinforcement reward is computed from, and nothing else. The think part follows from the same answer,
    also where the cold start named a score's distortion.
    """
    started, settings, views = time.perf_counter(), learner.settings, task_views(learner.settings)
    texts = [
        learner.tasks[task].text_to_teach(
            learner.tasks[task].true_answer(example),
            decimals=views[task].prompt.answer_decimals,
            reasoning=settings.cold_start.reasoning,
            labels={},
        )
        for task, example in zip(batch.tasks, batch.examples, strict=True)
    ]
    batch = replace(batch, answers=[answer_ids(learner.policy, text) for text in texts])
    num_tokens, total = learner.processes.total(sum(map(len, batch.answers))), 0.0
    with adapter_dropout(learner.policy.model):
        for rows in micro_slices(len(batch), settings.training.prompts_per_device):
            part = batch.select(range(rows.start, rows.stop))
            with learner.processes.together():
                loss = run_in_forward(
                    learner.policy.model,
                    partial(supervised_loss, learner.policy, part, num_tokens=num_tokens),
                )
                check_finite({"supervised": (float(loss.detach()), 1)})
            backward(learner.policy.model, loss)
            total += float(loss.detach())
    metrics = MetricSet()
    metrics.add("train/optimizer/grad_norm", apply_update(learner, now))
    metrics.add_sum("train/loss/total", total * learner.processes.count, 1.0)
    metrics.add("train/optimizer/learning_rate", now.learning_rate)
    metrics.add("time/step_s", time.perf_counter() - started)
    return metrics
