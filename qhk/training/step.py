"""One optimisation step: roll out, assign credit, update."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qhk.data.seeds import stream_generator
from qhk.objective.aggregate import Counts
from qhk.objective.total import total_loss
from qhk.policy.load import Policy
from qhk.policy.packed import pack_tokens
from qhk.rewards.compose import RewardTerm
from qhk.rollout.group import Group, Parser, read_completions, sample_in_batches
from qhk.settings import Settings
from qhk.training.branches import Branches, reference_readout, run_branches
from qhk.training.credit import Credit, assign_credit
from qhk.training.distributed import Processes
from qhk.training.inputs import StepPrompt
from qhk.training.optimizer import Coefficients, apply_gradients
from qhk.training.step_metrics import StepMetrics


@dataclass(frozen=True, kw_only=True)
class Learner:
    """All that a step works on. ``reference`` is the frozen start of the policy, None where no term asks for it."""

    policy: Policy
    reference: Any | None
    optimizer: torch.optim.Optimizer
    settings: Settings
    terms: Sequence[RewardTerm]
    parse: Parser
    processes: Processes


def roll_out(learner: Learner, prompts: Sequence[StepPrompt], *, step: int) -> list[Group]:
    """This process's groups; prompt i draws from the stream (seed, "rollout", step, global index i)."""
    rollout = learner.settings.rollout
    streams = [stream_generator(learner.settings.seed, "rollout", step, prompt.index) for prompt in prompts]
    sampled = sample_in_batches(
        learner.policy,
        [prompt.prompt for prompt in prompts],
        streams,
        group_size=rollout.group_size,
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        decode_batch=rollout.decode_batch,
    )
    return [
        Group(
            example=prompt.example,
            prompt=prompt.prompt,
            twin=prompt.twin,
            completion_ids=group.completion_ids,
            sampled_logprobs=group.logprobs,
            completions=read_completions(learner.policy, group, learner.parse),
        )
        for prompt, group in zip(prompts, sampled, strict=True)
    ]


def reinforcement_step(
    learner: Learner, prompts: Sequence[StepPrompt], *, step: int, now: Coefficients, measure: bool
) -> tuple[StepMetrics, list[Group], Credit]:
    """The metrics of one step, its groups and their credit; the policy has been updated.

    ``prompts`` are this process's part of the step's prompts; ``measure`` adds the costlier measurements.
    """
    settings, metrics = learner.settings, StepMetrics()
    started = time.perf_counter()
    groups = roll_out(learner, prompts, step=step)
    rolled_out = time.perf_counter()
    credit = assign_credit(
        groups,
        terms=learner.terms,
        objective=settings.objective,
        uncertainty=settings.uncertainty,
        task=settings.task,
        alpha=now.alpha,
        processes=learner.processes,
    )
    own = learner.processes.own_part(len(credit.rewards))
    advantages = credit.advantages[own].to(learner.policy.model.device, torch.float32)
    counts = Counts(
        sequences=int(credit.rewards.numel()),
        tokens=learner.processes.total(sum(group.num_tokens for group in groups)),
    )
    old = _old_logprobs(learner, groups) if settings.objective.updates_per_rollout > 1 else None
    for update in range(settings.objective.updates_per_rollout):
        first = update == 0
        _accumulate(learner, groups, advantages, old, counts, now, metrics, measure=measure and first)
        learner.processes.sum_gradients(learner.policy.model.parameters())
        metrics.grad_norm(
            apply_gradients(
                learner.policy.model,
                learner.optimizer,
                learning_rate=now.learning_rate,
                max_grad_norm=settings.optimizer.max_grad_norm,
            )
        )
    metrics.rollout(groups)
    metrics.credit(credit)
    metrics.coefficients(now)
    metrics.times(
        rollout_s=rolled_out - started, update_s=time.perf_counter() - rolled_out, num_tokens=counts.tokens
    )
    return metrics, groups, credit


def _micro_batches(groups: Sequence[Group], size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(groups), size)]


def _accumulate(
    learner: Learner,
    groups: Sequence[Group],
    advantages: Tensor,
    old: list[Tensor] | None,
    counts: Counts,
    now: Coefficients,
    metrics: StepMetrics,
    *,
    measure: bool,
) -> None:
    """Adds the step's whole gradient to the parameters, one micro-batch at a time, and records its terms."""
    settings = learner.settings
    for number, part in enumerate(_micro_batches(groups, settings.training.prompts_per_device)):
        branches: Branches = run_branches(
            learner.policy.model,
            learner.reference,
            groups[part],
            needs=now.terms.needs(),
            temperature=settings.rollout.temperature,
            measure=measure,
        )
        output = total_loss(
            mask=branches.mask,
            advantages=advantages[part].flatten(),
            original=branches.original,
            old_logprobs=None if old is None else old[number],
            reference_logprobs=branches.reference_logprobs,
            degraded=branches.degraded,
            exact_kl=branches.exact_kl,
            counts=counts,
            terms=now.terms,
        )
        output.loss.backward()  # type: ignore[no-untyped-call]
        metrics.loss(output)
        if measure:
            metrics.branches(branches, groups[part])


def _old_logprobs(learner: Learner, groups: Sequence[Group]) -> list[Tensor]:
    """Per micro-batch, the log-probabilities (R, T) before the first update, from the forward that trains."""
    old = []
    for part in _micro_batches(groups, learner.settings.training.prompts_per_device):
        tokens = pack_tokens([group.completion_ids for group in groups[part]], device=learner.policy.model.device)
        readout = reference_readout(
            learner.policy.model, groups[part], tokens, temperature=learner.settings.rollout.temperature
        )
        old.append(tokens.pad(readout))
    return old
