"""One optimisation step: roll out, assign credit, update."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qhk.data.seeds import stream_generator
from qhk.objective.total import total_loss
from qhk.policy.load import Policy
from qhk.policy.packed import pack_tokens
from qhk.rewards.term import RewardTerm
from qhk.rollout.group import Group, Parser, read_completions, sample_in_batches
from qhk.settings import Settings, build_tasks
from qhk.tasks.task import Span
from qhk.tracking.metrics import MetricSet
from qhk.training.branches import logprobs_of, run_branches
from qhk.training.credit import Credit, assign_credit
from qhk.training.distributed import Processes
from qhk.training.divergence import sequence_divergences
from qhk.training.earnings import Earnings, earn_rewards
from qhk.training.inputs import StepPrompt
from qhk.training.lesson import Lesson, make_lesson
from qhk.training.optimizer import Coefficients, apply_gradients
from qhk.training.resample import Fresh, Resampled, replace_uninformative
from qhk.training.step_metrics import (
    branch_metrics,
    coefficient_metrics,
    credit_metrics,
    divergence_metrics,
    loss_metrics,
    resample_metrics,
    rollout_metrics,
)


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What a step works on.

    ``reference`` is the frozen start of the policy, None where it is not needed; ``terms`` and ``parsers``
    go by task; ``memory`` holds the uncertainty's variances by image, which steps add to.
    """

    policy: Policy
    reference: Any | None
    optimizer: torch.optim.Optimizer
    settings: Settings
    terms: Mapping[str, Sequence[RewardTerm]]
    parsers: Mapping[str, Parser]
    processes: Processes
    memory: dict[str, float]


def reinforcement_step(
    learner: Learner,
    prompts: Sequence[StepPrompt],
    *,
    step: int,
    now: Coefficients,
    measure: bool,
    fresh: Fresh | None = None,
) -> tuple[MetricSet, list[Group]]:
    """This process's metrics of one step and its groups; the policy has been updated.

    ``prompts`` are this process's part of the step's prompts, ``fresh`` gives those that replace them where
    ``objective.max_resamples`` is on; ``measure`` adds the costlier measurements.
    """
    started = time.perf_counter()
    groups = roll_out(learner, prompts, step=step)
    sampled = time.perf_counter()
    earnings = earn_rewards(groups, terms=learner.terms, processes=learner.processes)
    earned = time.perf_counter()
    drawn = _resample(learner, groups, earnings, step=step, fresh=fresh)
    resampled = time.perf_counter()
    credit, metrics = _give_credit(learner, drawn, now)
    lesson = make_lesson(
        drawn.groups,
        credit,
        tokenizer=learner.policy.tokenizer,
        spans=_spans(learner) if now.terms.needs().answer_tokens else None,
        processes=learner.processes,
    )
    credited = time.perf_counter()
    metrics.merge(_update(learner, lesson, now, measure=measure))
    finished = time.perf_counter()
    metrics.merge(rollout_metrics(drawn.groups, tasks=build_tasks(learner.settings)))
    metrics.merge(credit_metrics(credit))
    metrics.merge(coefficient_metrics(now))
    if learner.settings.objective.max_resamples:
        metrics.merge(resample_metrics(drawn))
        metrics.add("time/resample_s", resampled - earned)
    for part, seconds in (
        ("rollout", sampled - started),
        ("score", earned - sampled + credited - resampled),
        ("update", finished - credited),
        ("step", finished - started),
    ):
        metrics.add(f"time/{part}_s", seconds)
    metrics.add("train/tokens_per_s", credit.num_tokens / (finished - started))
    metrics.add("memory/peak_gib", peak_memory_gib())
    return metrics, drawn.groups


def _resample(
    learner: Learner, groups: list[Group], earnings: Earnings, *, step: int, fresh: Fresh | None
) -> Resampled:
    """The groups after dynamic sampling; as they are where it is off."""
    rounds = learner.settings.objective.max_resamples
    assert fresh is not None or rounds == 0, "replacing groups needs fresh prompts"
    return replace_uninformative(
        groups,
        earnings,
        max_rounds=rounds,
        own=learner.processes.own_part(len(earnings.rewards)),
        fresh=fresh or (lambda number, places: []),
        sample=lambda prompts, number: roll_out(learner, prompts, step=step, resample=number),
        earn=lambda kept: earn_rewards(kept, terms=learner.terms, processes=learner.processes),
    )


def _give_credit(learner: Learner, drawn: Resampled, now: Coefficients) -> tuple[Credit, MetricSet]:
    """The step's credit, and what was measured of a KL in it; the memory has the step's variances."""
    settings, metrics, divergence = learner.settings, MetricSet(), None
    objective = settings.objective
    if objective.kl_placement == "reward" and objective.kl_coef > 0:
        divergence = sequence_divergences(
            learner.reference,
            drawn.groups,
            estimator=objective.kl_estimator,
            temperature=settings.rollout.temperature,
            prompts_per_device=settings.training.prompts_per_device,
        )
        metrics.merge(divergence_metrics(divergence, drawn.groups))
    credit = assign_credit(
        drawn.groups,
        drawn.earnings,
        objective=objective,
        uncertainty=settings.uncertainty,
        tasks=build_tasks(learner.settings),
        alpha=now.alpha,
        divergence=divergence,
        memory=learner.memory,
        processes=learner.processes,
    )
    learner.memory.update(credit.memory)
    return credit, metrics


def _spans(learner: Learner) -> dict[str, Span]:
    return {name: task.answer_span for name, task in build_tasks(learner.settings).items()}


def roll_out(learner: Learner, prompts: Sequence[StepPrompt], *, step: int, resample: int = 0) -> list[Group]:
    """This process's groups; prompt i draws from the stream (seed, "rollout", step, global index i).

    In round ``resample`` > 0 of dynamic sampling that is (seed, "resample", step, round, i).
    """
    rollout, place = learner.settings.rollout, ("resample", step, resample) if resample else ("rollout", step)
    sampled = sample_in_batches(
        learner.policy,
        [prompt.prompt for prompt in prompts],
        [stream_generator(learner.settings.seed, *place, prompt.index) for prompt in prompts],
        group_size=rollout.group_size,
        max_new_tokens=rollout.max_new_tokens,
        temperature=rollout.temperature,
        decode_batch=rollout.decode_batch,
    )
    return [
        Group(
            task=prompt.task,
            example=prompt.example,
            prompt=prompt.prompt,
            twin=prompt.twin,
            completion_ids=group.completion_ids,
            sampled_logprobs=group.logprobs,
            completions=read_completions(learner.policy, group, learner.parsers[prompt.task]),
        )
        for prompt, group in zip(prompts, sampled, strict=True)
    ]


def peak_memory_gib() -> float:
    """The largest memory this process has used: of its GPU where it has one, else of the process itself."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _update(learner: Learner, lesson: Lesson, now: Coefficients, *, measure: bool) -> MetricSet:
    """The metrics of ``updates_per_rollout`` updates of the policy on the same groups, as means over them."""
    settings, model = learner.settings, learner.policy.model
    # With one update the old policy is the present one: the ratio is 1 and needs no forward of its own.
    old = _old_logprobs(learner, lesson.groups) if settings.objective.updates_per_rollout > 1 else None
    metrics = MetricSet()
    for update in range(settings.objective.updates_per_rollout):
        with learner.processes.together():
            measured = _accumulate(learner, lesson, old, now, measure=measure and update == 0)
        learner.processes.sum_gradients(model.parameters())
        norm = apply_gradients(
            model,
            learner.optimizer,
            learning_rate=now.learning_rate,
            max_grad_norm=settings.optimizer.max_grad_norm,
        )
        metrics.merge(measured)
        metrics.add("train/optimizer/grad_norm", norm)
    return metrics


def _accumulate(
    learner: Learner, lesson: Lesson, old: list[Tensor] | None, now: Coefficients, *, measure: bool
) -> MetricSet:
    """Adds the step's whole gradient to the parameters, one micro-batch at a time; the terms as measured."""
    metrics, total, groups = MetricSet(), 0.0, lesson.groups
    for number, part in enumerate(_micro_batches(groups, learner.settings.training.prompts_per_device)):
        branches = run_branches(
            learner.policy.model,
            learner.reference,
            groups[part],
            needs=now.terms.needs(),
            temperature=learner.settings.rollout.temperature,
            measure=measure,
        )
        device, dtype = branches.mask.device, branches.original.logprobs.dtype
        answers = lesson.answer_mask(part)
        output = total_loss(
            mask=branches.mask & lesson.learns[part].flatten()[:, None].to(device),
            advantages=lesson.advantages[part].flatten().to(device, dtype),
            original=branches.original,
            old_logprobs=None if old is None else old[number],
            reference_logprobs=branches.reference_logprobs,
            degraded=branches.degraded,
            exact_kl=branches.exact_kl,
            counts=lesson.counts,
            terms=now.terms,
            answer_mask=None if answers is None else answers.to(device),
        )
        output.loss.backward()  # type: ignore[no-untyped-call]
        total += float(output.loss.detach())
        metrics.merge(loss_metrics(output))
        if measure:
            metrics.merge(branch_metrics(branches, groups[part]))
    # Micro-batch losses carry global counts already: they add up, over processes too.
    metrics.add_sum("train/loss/total", total * learner.processes.count, 1.0)
    return metrics


def _micro_batches(groups: Sequence[Group], size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(groups), size)]


def _old_logprobs(learner: Learner, groups: Sequence[Group]) -> list[Tensor]:
    """Per micro-batch, the log-probabilities (R, T) before the first update, by the forward that trains."""
    old = []
    for part in _micro_batches(groups, learner.settings.training.prompts_per_device):
        tokens = pack_tokens(
            [group.completion_ids for group in groups[part]], device=learner.policy.model.device
        )
        temperature = learner.settings.rollout.temperature
        old.append(
            tokens.pad(logprobs_of(learner.policy.model, groups[part], tokens, temperature=temperature))
        )
    return old
