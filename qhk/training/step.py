"""One step of reinforcement, from top to bottom: sample, reward, refill, advantages, update.

GRPO in its textbook form is what is left when everything optional is off: G completions per prompt, rewards,
advantages relative to the group, one policy-gradient update. Optional are, in the order in which they come:
numbers of rewards that change over the run, fresh prompts for groups that teach nothing (DAPO), a KL taken
off the reward, rewards normalised one by one (GDPO), uncertainty weights (Q-Hawkeye), several updates with
clipped ratios (PPO), and in the loss weights of tokens (VPPO and others), a KL to a reference, an entropy
bonus, and the perception terms, which look at a degraded copy of the image.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qhk.data.seeds import stream_generator
from qhk.errors import UserError
from qhk.objective.advantage import decoupled_advantages, flat_groups, group_advantages
from qhk.objective.aggregate import Counts
from qhk.objective.correction import correction_weights
from qhk.objective.credit import covariances, drawn_covariances, largest_covariances
from qhk.objective.forms import UNCERTAINTY_FORMS
from qhk.objective.reference import sequence_kl
from qhk.objective.total import Branch, LossOutput, total_loss
from qhk.objective.uncertainty import (
    answer_entropies,
    group_variances,
    largest_variance,
    relative_uncertainty,
    smoothed_variances,
    uncertainty_weights,
)
from qhk.policy.load import Policy
from qhk.policy.spans import tokens_in_span
from qhk.rewards.batch import ScoredGroup, scored_group
from qhk.rewards.term import (
    CompletionsTerm,
    CompletionTerm,
    Judge,
    RewardTerm,
    batch_values,
    completion_value,
    completions_values,
    scheduled,
)
from qhk.rollout.engine import RolloutEngine
from qhk.rollout.sample import read_completions
from qhk.settings.objective import CovarianceSettings, ObjectiveSettings, UncertaintySettings
from qhk.settings.rollout import CorrectionSettings
from qhk.settings.root import Settings
from qhk.tasks import Task
from qhk.tracking.metrics import MetricSet
from qhk.training.balance import LEAST_TOKENS, deal
from qhk.training.batch import Batch
from qhk.training.distributed import Processes
from qhk.training.forward import (
    MicroBatch,
    frozen_features,
    learning_features,
    make_micro_batches,
    micro_slices,
    policy_branches,
    present_logprobs,
    reference_logprobs,
    sampled_logprobs,
    vision_is_frozen,
)
from qhk.training.kept import Kept
from qhk.training.memory import goes_on_from_rollout
from qhk.training.metrics import (
    branch_metrics,
    coefficient_metrics,
    divergence_metrics,
    engine_metrics,
    loss_metrics,
    resample_metrics,
    reward_metrics,
    rollout_metrics,
)
from qhk.training.optimizer import Coefficients, apply_gradients
from qhk.training.sharding import backward, gathered, run_in_forward

FreshPrompts = Callable[[int, Sequence[int]], Batch]
"""(round from 1, indices) -> the loaded prompts that take these places of the step."""


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What a step works on.

    ``reference`` is the frozen start of the policy, None where it is not needed; ``terms`` and ``tasks``
    go by task's name; ``memory`` holds the uncertainty's variances, or entropies, by image, which steps add
    to, ``missing`` how many completions each reward gave nothing so far, by its name in metrics; ``engine``
    samples; ``features`` holds those of a vision tower that does not change, of pictures seen before.
    """

    policy: Policy
    reference: Any | None
    optimizer: torch.optim.Optimizer
    settings: Settings
    terms: Mapping[str, Sequence[RewardTerm]]
    tasks: Mapping[str, Task]
    processes: Processes
    memory: dict[str, float]
    missing: dict[str, int]
    engine: RolloutEngine
    features: Kept[Tensor]


def reinforcement_step(
    learner: Learner,
    batch: Batch,
    *,
    step: int,
    now: Coefficients,
    measure: bool,
    fresh: FreshPrompts,
) -> tuple[MetricSet, Batch]:
    """Return this process's metrics of one step and the filled batch; the policy has been updated.

    ``batch`` holds this process's part of the step's prompts, loaded; ``fresh`` gives those that replace them
    where ``objective.max_resamples`` is on; ``measure`` adds the costlier measurements.
    """
    settings, processes, clock = learner.settings, learner.processes, [time.perf_counter()]
    objective = settings.objective
    terms = {task: scheduled(own, now.reward_factors.get(task, {})) for task, own in learner.terms.items()}

    with engine_loaded(learner):
        clock.append(time.perf_counter())

        batch = sample(learner, batch, step=step)
        clock.append(time.perf_counter())

        batch = reward(batch, terms=terms, processes=processes)
        clock.append(time.perf_counter())

        batch = refill(
            batch,
            max_rounds=objective.max_resamples,
            minimum_std=objective.minimum_std,
            counted=lambda filled: _lengths_and_counted(filled, objective, processes)[2],
            fresh=fresh,
            sample=lambda prompts, number: sample(learner, prompts, step=step, resample=number),
            reward=lambda filled: reward(filled, terms=terms, processes=processes),
        )
    count_missing(batch, terms=terms, missing=learner.missing)
    clock.append(time.perf_counter())

    needs = now.terms.needs()
    batch = even_out(batch, size=settings.training.prompts_per_device)
    parts = make_micro_batches(
        learner.policy.model,
        batch,
        size=settings.training.prompts_per_device,
        with_degraded=needs.degraded or (measure and len(batch.degraded) > 0),
        kept=learner.features,
    )
    kl_in_reward = objective.kl_placement == "reward" and objective.kl_coef > 0
    # The reference stays as it is, so one forward serves all updates on these completions.
    references = _reference_logprobs(learner, parts) if needs.reference or kl_in_reward else None
    divergence = _divergence(learner, batch, parts, references) if kl_in_reward else None

    batch = add_advantages(
        batch,
        objective=objective,
        uncertainty=settings.uncertainty,
        tasks=learner.tasks,
        alpha=now.alpha,
        divergence=divergence,
        memory=learner.memory,
        processes=processes,
    )
    learner.memory.update(batch.variances)
    if needs.answer_tokens:
        tokenizer = learner.policy.tokenizer
        batch = find_answers(batch, tokenizer=tokenizer, tasks=learner.tasks, processes=processes)
    if objective.covariance.form != "none":
        order = stream_generator(settings.seed, "covariance", step)
        batch = select_tokens(batch, covariance=objective.covariance, rng=order, processes=processes)
    clock.append(time.perf_counter())

    metrics = update(learner, batch, parts, references, now, measure=measure)
    clock.append(time.perf_counter())

    if divergence is not None:
        metrics.merge(divergence_metrics(divergence, batch.groups))
    metrics.merge(rollout_metrics(batch, tasks=learner.tasks))
    metrics.merge(reward_metrics(batch, missing=learner.missing))
    metrics.merge(coefficient_metrics(now))
    started, loaded, sampled, rewarded, refilled, weighted, updated = clock
    if objective.max_resamples:
        metrics.merge(resample_metrics(batch))
        metrics.add("time/resample_s", refilled - rewarded)
    if not learner.engine.is_exact:
        metrics.add("time/load_engine_s", loaded - started)
    metrics.add("time/rollout_s", sampled - started)
    metrics.add("time/score_s", rewarded - sampled + weighted - refilled)
    metrics.add("time/update_s", updated - weighted)
    metrics.add("time/step_s", updated - started)
    metrics.add("train/tokens_per_s", batch.num_tokens / (updated - started))
    metrics.add("memory/peak_gib", peak_memory_gib())
    return metrics, batch


# --- sample -----------------------------------------------------------------------------------------------


@contextmanager
def engine_loaded(learner: Learner) -> Iterator[None]:
    """Hold the rollout engine inside with the weights that the last update left, asleep outside.

    One that all processes share is given them by one, of weights that all of them gather.
    """
    engine, processes = learner.engine, learner.processes
    if engine.is_exact:
        yield
        return
    with gathered(learner.policy.model):
        if processes.is_main or not engine.is_shared:
            engine.load(learner.policy)
    processes.wait()
    try:
        yield
    finally:
        engine.rest()


def sample(learner: Learner, batch: Batch, *, step: int, resample: int = 0) -> Batch:
    """Return the batch with a group of G completions for each prompt, and what is read in them.

    The prompt of index i draws from the stream (seed, "rollout", step, i), in round ``resample`` > 0 of
    dynamic sampling from (seed, "resample", step, round, i): so neither the number of processes nor the size
    of a decoding batch changes what the policy samples. Another engine's seeds come from the same streams.
    """
    policy, settings, rollout = learner.policy, learner.settings, learner.settings.rollout
    place = ("resample", step, resample) if resample else ("rollout", step)
    size, features = settings.training.prompts_per_device, list[Tensor]()
    with gathered(policy.model):
        # A frozen tower gives prefill, policy and reference the same features: they are computed here, once.
        # One that learns gives prefill and the policy's first forward the same.
        if vision_is_frozen(policy.model):
            features = frozen_features(policy.model, batch.prompts, size=size, kept=learner.features)
        elif goes_on_from_rollout(settings, prompts=len(batch)):
            features = learning_features(policy.model, batch.prompts)
        groups = learner.engine.sample(
            policy,
            batch.prompts,
            [stream_generator(settings.seed, *place, index) for index in batch.indices],
            rollout=rollout,
            features=[one.detach() for one in features],
        )
    completions = [
        read_completions(policy, group, learner.tasks[task].parse)
        for group, task in zip(groups, batch.tasks, strict=True)
    ]
    return replace(batch, features=features, groups=groups, completions=completions)


# --- reward -----------------------------------------------------------------------------------------------


def reward(batch: Batch, *, terms: Mapping[str, Sequence[RewardTerm]], processes: Processes) -> Batch:
    """Return the batch with the rewards of the whole step's completions; ``terms`` go by task.

    Opinions, scores and what each completion earns by itself are gathered over processes, since rewards may
    compare the groups of a step. They compare those of one task: other tasks' rewards have other ranges.
    """
    own = list(zip(batch.tasks, _scored_groups(batch), strict=True))
    gathered = processes.gather_placed(own, batch.indices)
    batch = replace(batch, all_tasks=[task for task, _ in gathered], scored=[group for _, group in gathered])
    rewards = torch.zeros(len(gathered), len(batch.completions[0]), dtype=torch.float64)
    breakdown: dict[str, Tensor] = {}
    weights: dict[str, dict[str, float]] = {}
    missing: dict[str, Tensor] = {}
    for task, own_terms in terms.items():
        rows, weights[task] = batch.rows_of(task), {}
        for term in own_terms:
            values = _term_values(term, task, batch, processes)[rows]
            name = _name(term, task, terms)
            if isinstance(term, CompletionsTerm):
                missing[name] = torch.zeros(rewards.shape, dtype=torch.bool)
                missing[name][rows] = values.isnan()
                values = torch.where(values.isnan(), values.nanmean(dim=1, keepdim=True), values).nan_to_num()
            rewards[rows] += term.weight * values
            breakdown[name], weights[task][name] = values, term.weight
    return replace(batch, rewards=rewards, breakdown=breakdown, term_weights=weights, missing_rewards=missing)


def count_missing(
    batch: Batch, *, terms: Mapping[str, Sequence[RewardTerm]], missing: dict[str, int]
) -> None:
    """Add the completions of the step that a reward gave nothing to ``missing``, by the reward's name.

    Those of groups that gave way to fresh prompts count as well: a service that fails makes groups flat.
    Raises UserError where that is more than the term allows of a run. All processes know the same numbers.
    """
    for task, own_terms in terms.items():
        for term in own_terms:
            name = _name(term, task, terms)
            if name not in batch.missing_rewards:
                continue
            count = int(batch.missing_rewards[name].sum()) + batch.missing_replaced.get(name, 0)
            missing[name] = missing.get(name, 0) + count
            most = term.function.most_missing if isinstance(term.function, Judge) else None
            if most is not None and missing[name] > most:
                raise UserError(
                    f"reward.terms.{term.name}.most_missing: {missing[name]} completions have had no reward, "
                    f"at most {most} may; mend the service and start the run again, which goes on"
                )


def _name(term: RewardTerm, task: str, terms: Mapping[str, Sequence[RewardTerm]]) -> str:
    """Return the term's name in metrics."""
    return term.name if len(terms) == 1 else f"{task}.{term.name}"


def _scored_groups(batch: Batch) -> list[ScoredGroup | None]:
    """What rewards that compare groups see of this process's; None where an example has no score."""
    return [
        None if example.mos is None else scored_group(example, [one.answer for one in completions])
        for example, completions in zip(batch.examples, batch.completions, strict=True)
    ]


def _term_values(term: RewardTerm, task: str, batch: Batch, processes: Processes) -> Tensor:
    """(B, G) what one term gives all groups of the step: 0 for other tasks', NaN where it gave none."""
    if isinstance(term, CompletionTerm):
        own = [
            [completion_value(term, one, example) if name == task else 0.0 for one in completions]
            for name, example, completions in zip(batch.tasks, batch.examples, batch.completions, strict=True)
        ]
        return processes.gather_rows(torch.tensor(own, dtype=torch.float64), batch.indices)
    if isinstance(term, CompletionsTerm):
        mine = [place for place, name in enumerate(batch.tasks) if name == task]
        judged = torch.zeros(len(batch), len(batch.completions[0]), dtype=torch.float64)
        if mine:
            completions = [one for place in mine for one in batch.completions[place]]
            examples = [batch.examples[place] for place in mine for _ in batch.completions[place]]
            found = [_number(value) for value in completions_values(term, completions, examples)]
            judged[mine] = torch.tensor(found, dtype=torch.float64).view(len(mine), -1)
        return processes.gather_rows(judged, batch.indices)
    values = torch.zeros(len(batch.all_tasks), len(batch.completions[0]), dtype=torch.float64)
    rows = [row for row in batch.rows_of(task) if batch.scored[row] is not None]
    if rows:
        compared = [group for row in rows if (group := batch.scored[row]) is not None]
        values[rows] = torch.tensor(batch_values(term, compared), dtype=torch.float64)
    return values


# --- refill -----------------------------------------------------------------------------------------------


def refill(
    batch: Batch,
    *,
    max_rounds: int,
    minimum_std: float = 0.0,
    counted: Callable[[Batch], Tensor],
    fresh: FreshPrompts,
    sample: Callable[[Batch, int], Batch],
    reward: Callable[[Batch], Batch],
) -> Batch:
    """Return the batch once no group is flat, or after ``max_rounds`` rounds; 0 changes nothing.

    A flat group (``flat_groups``) teaches nothing: its total rewards are alike, whatever they are made of.
    In each round every one of them gives its place to the group of a fresh prompt, and all rewards are taken
    anew, because some compare groups. What is judged is the total reward, without a KL, of the completions
    that are ``counted`` (B, G). ``sample`` takes (prompts, round). Which prompt takes a place depends on
    (seed, step, round, index) alone, so any number of processes replaces the same groups by the same ones.

    Source: DAPO (arXiv 2503.14476, section 3.2), which samples whole batches and keeps what is informative
    until a batch is full; here a place is filled again and again instead, and what is still uninformative
    after the last round stays, with advantage 0.
    """
    while batch.num_rounds < max_rounds:
        flat = flat_groups(batch.rewards, minimum_std=minimum_std, counted=counted(batch))
        if not bool(flat.any()):
            break
        number = batch.num_rounds + 1
        rows = [row for row, place in enumerate(batch.indices) if flat[place]]
        places = [batch.indices[row] for row in rows]
        filled = batch.with_prompts(rows, sample(fresh(number, places), number))
        filled = replace(
            filled,
            num_rounds=number,
            num_resampled=batch.num_resampled + int(flat.sum()),
            missing_replaced={
                name: batch.missing_replaced.get(name, 0) + int(missing[flat].sum())
                for name, missing in batch.missing_rewards.items()
            },
        )
        batch = reward(filled)
    return batch


# --- micro-batches ----------------------------------------------------------------------------------------


def even_out(batch: Batch, *, size: int) -> Batch:
    """Return the batch with its prompts in an order whose micro-batches of ``size`` have even tokens.

    Counted are those of the packed row: a prompt once, and all its completions. The gradient is a sum over
    prompts, so the order changes its rounding alone; the largest micro-batch decides the memory.
    """
    slices = micro_slices(len(batch), size)
    tokens = [
        prompt.num_tokens + group.num_tokens
        for prompt, group in zip(batch.prompts, batch.groups, strict=True)
    ]
    parts = deal(tokens, [own.stop - own.start for own in slices], least=LEAST_TOKENS)
    return batch.in_order([place for part in parts for place in part])


# --- advantages -------------------------------------------------------------------------------------------


def _reference_logprobs(learner: Learner, parts: Sequence[MicroBatch]) -> list[Tensor]:
    temperature, kept = learner.settings.rollout.temperature, learner.features
    return [reference_logprobs(learner.reference, part, temperature=temperature, kept=kept) for part in parts]


def _divergence(
    learner: Learner, batch: Batch, parts: Sequence[MicroBatch], references: Sequence[Tensor] | None
) -> Tensor:
    """(b, G) float64 on the CPU: each completion's estimated KL(policy || reference), summed over tokens.

    The policy's log-probabilities are those it sampled with, which needs no forward of the policy; where
    another engine sampled, one finds them.
    """
    assert references is not None
    rollout, estimator = learner.settings.rollout, learner.settings.objective.kl_estimator
    rows = []
    for part, reference in zip(parts, references, strict=True):
        logprobs = (
            sampled_logprobs(part, batch.groups)
            if learner.engine.is_exact
            else present_logprobs(learner.policy.model, part, temperature=rollout.temperature).double()
        )
        kl = sequence_kl(logprobs, reference, part.packed.mask(), estimator=estimator)
        rows.append(kl.view(part.rows.stop - part.rows.start, -1).cpu())
    return torch.cat(rows)


def add_advantages(
    batch: Batch,
    *,
    objective: ObjectiveSettings,
    uncertainty: UncertaintySettings,
    tasks: Mapping[str, Task],
    alpha: float,
    divergence: Tensor | None,
    memory: Mapping[str, float],
    processes: Processes,
) -> Batch:
    """Return the batch with the advantages of the whole step, times uncertainty weights, and what counts.

    ``alpha`` is the uncertainty strength at this step; ``divergence`` (b, G) the KL of this process's
    completions where it is taken off their rewards; ``memory`` the variances of earlier steps, by image.
    Scaling and uncertainty may compare groups, those of one task. A task answered in words has no score to be
    uncertain of, so its groups weigh 1. With ``uncertainty.answer_rule`` answers are read once more, for the
    weight alone (release of Q-Hawkeye). With ``objective.minimum_std`` a group of less spread gets none. A
    completion cut at the length limit (``objective.truncated``)

    keep     learns like any other                              (GRPO; all four releases)
    mask     leaves the loss, every term of it; its reward stays in the group's mean and std, it stays among
             the completions divided by, and its tokens do not  (DAPO, arXiv 2503.14476, overlong filtering;
             TRL's ``mask_truncated_completions``)
    exclude  leaves all of these, as if it had not been sampled (ours)
    """
    lengths, cut, counted = _lengths_and_counted(batch, objective, processes)
    loss_mask = torch.ones_like(counted) if objective.truncated == "keep" else cut == 0
    rewards = batch.rewards
    if divergence is not None:
        rewards = rewards - objective.kl_coef * processes.gather_rows(divergence, batch.indices)
    scores, advantages = torch.full_like(rewards, math.nan), torch.zeros_like(rewards)
    weights, variances = torch.ones(len(rewards), dtype=torch.float64), dict[str, float]()
    reread = None
    if uncertainty.answer_rule is not None:
        reread = processes.gather_rows(_reread(batch, tasks, uncertainty.answer_rule), batch.indices)
    for name, task in tasks.items():
        rows = batch.rows_of(name)
        if not rows:
            continue
        advantages[rows] = _task_advantages(batch, name, rewards[rows], objective, counted[rows])
        if task.has_scores:
            scores[rows] = _scores([batch.scored[row] for row in rows])
            keys = [f"{name}/{group.dataset}/{group.id}" for row in rows if (group := batch.scored[row])]
            spreads, largest = group_variances, largest_variance(task.low, task.high)
            if UNCERTAINTY_FORMS[uncertainty.form].by_entropy:
                spreads, largest = answer_entropies, math.log(rewards.shape[1])
                keys = [f"entropy/{key}" for key in keys]  # nats are not averaged with squared points
            smoothed, remembered = smoothed_variances(
                spreads(
                    scores[rows] if reread is None else reread[rows],
                    low=task.low,
                    high=task.high,
                    minimum_parsed=uncertainty.minimum_parsed,
                    out_of_range=uncertainty.out_of_range,
                ),
                keys,
                memory,
                decay=uncertainty.history_decay,
            )
            variances |= remembered
            weights[rows] = uncertainty_weights(
                relative_uncertainty(smoothed, largest=largest, normaliser=uncertainty.normaliser),
                form=uncertainty.form,
                alpha=alpha,
                unparsed_weight=uncertainty.unparsed_weight,
            )
    return replace(
        batch,
        scores=scores,
        weights=weights,
        # After normalisation: inside a group it would cancel in the division by the group's std.
        advantages=advantages * weights[:, None],
        loss_mask=loss_mask,
        # Counts of the whole step, so that losses of micro-batches and processes are added, not averaged:
        # a mean of means would weigh a completion by how many happen to share its micro-batch.
        counts=Counts(sequences=max(int(counted.sum()), 1), tokens=int(lengths[loss_mask].sum())),
        num_tokens=int(lengths.sum()),
        variances=variances,
    )


def _lengths_and_counted(
    batch: Batch, objective: ObjectiveSettings, processes: Processes
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, G) of the whole step: tokens, 1 where cut at the limit, and whether it is in its group's mean."""
    lengths, cut = processes.gather_rows(
        torch.tensor([[(c.num_tokens, int(c.truncated)) for c in group] for group in batch.completions]),
        batch.indices,
    ).unbind(-1)
    counted = cut == 0 if objective.truncated == "exclude" else torch.ones_like(cut, dtype=torch.bool)
    return lengths, cut, counted


def _task_advantages(
    batch: Batch, task: str, rewards: Tensor, objective: ObjectiveSettings, counted: Tensor
) -> Tensor:
    """(B', G) advantages of a task's groups, whose total rewards are ``rewards``."""
    epsilon = objective.advantage_epsilon
    if objective.advantage_rewards == "each":
        weights = batch.term_weights[task]
        parts = [batch.breakdown[name] for name in weights]
        advantages = decoupled_advantages(parts, list(weights.values()), epsilon=epsilon, counted=counted)
    else:
        scaling = objective.advantage_scaling
        advantages = group_advantages(rewards, scaling=scaling, epsilon=epsilon, counted=counted)
    if objective.minimum_std > 0:
        flat = flat_groups(rewards, minimum_std=objective.minimum_std, counted=counted)
        advantages = torch.where(flat[:, None], 0.0, advantages)
    return advantages


def _scores(groups: Sequence[ScoredGroup | None]) -> Tensor:
    rows = []
    for group in groups:
        assert group is not None, "a task that asks for numbers has examples with a score"
        rows.append([_number(score) for score in group.scores])
    return torch.tensor(rows, dtype=torch.float64)


def _reread(batch: Batch, tasks: Mapping[str, Task], rule: str) -> Tensor:
    """(b, G) what another rule reads in this process's completions; NaN for nothing, and for words."""
    rows = []
    for name, completions in zip(batch.tasks, batch.completions, strict=True):
        task = replace(tasks[name], answer_rule=rule) if tasks[name].has_scores else tasks[name]
        rows.append([_number(task.parse(completion.text).score) for completion in completions])
    return torch.tensor(rows, dtype=torch.float64)


def _number(score: float | None) -> float:
    return math.nan if score is None else score


def find_answers(batch: Batch, *, tokenizer: Any, tasks: Mapping[str, Task], processes: Processes) -> Batch:
    """Return the batch with the tokens that stand in answers, for an entropy bonus on answers alone."""
    masks = [
        [
            _answer_tokens(tokenizer, ids, tasks[task].answer_span(completion.text))
            for ids, completion in zip(group.completion_ids, completions, strict=True)
        ]
        for task, group, completions in zip(batch.tasks, batch.groups, batch.completions, strict=True)
    ]
    learning = batch.loss_mask[list(batch.indices)].nonzero().tolist()
    inside = sum(int(masks[place][number].sum()) for place, number in learning)
    counts = replace(batch.counts, answer_tokens=processes.total(inside))
    return replace(batch, answer_masks=masks, counts=counts)


def _answer_tokens(tokenizer: Any, ids: Tensor, span: tuple[int, int] | None) -> Tensor:
    return torch.zeros(len(ids), dtype=torch.bool) if span is None else tokens_in_span(tokenizer, ids, span)


def select_tokens(
    batch: Batch, *, covariance: CovarianceSettings, rng: np.random.Generator, processes: Processes
) -> Batch:
    """Return the batch with the tokens that take most entropy away, of all tokens that the step learns from.

    Log-probabilities are those of the sampling, so the same tokens are selected in every update and whatever
    shares a micro-batch or a process.
    """
    rows = [
        [
            (logprobs.double().cpu(), float(advantage)) if learns else None
            for logprobs, advantage, learns in zip(
                group.logprobs, batch.advantages[place], batch.loss_mask[place], strict=True
            )
        ]
        for place, group in zip(batch.indices, batch.groups, strict=True)
    ]
    everyone = processes.gather_placed(rows, batch.indices)
    learning = [
        ((place, number), *row)
        for place, group in enumerate(everyone)
        for number, row in enumerate(group)
        if row is not None
    ]
    lengths = [len(logprobs) for _, logprobs, _ in learning]
    nothing = torch.zeros(0, dtype=torch.float64)
    values = covariances(
        torch.cat([nothing, *(logprobs for _, logprobs, _ in learning)]),
        torch.cat([nothing, *(torch.full((len(own),), value).double() for _, own, value in learning)]),
    )
    chosen = (
        largest_covariances(values, share=covariance.share)
        if covariance.form == "kl"
        else drawn_covariances(
            values,
            share=covariance.share,
            low=covariance.low,
            high=covariance.high,
            order=torch.from_numpy(rng.permutation(len(values))),
        )
    )
    masks = dict(zip([place for place, *_ in learning], torch.split(chosen, lengths), strict=True))
    selected = [
        [
            masks.get((place, number), torch.zeros(len(ids), dtype=torch.bool))
            for number, ids in enumerate(group.completion_ids)
        ]
        for place, group in zip(batch.indices, batch.groups, strict=True)
    ]
    return replace(batch, selected=selected)


# --- update -----------------------------------------------------------------------------------------------


def update(
    learner: Learner,
    batch: Batch,
    parts: Sequence[MicroBatch],
    references: Sequence[Tensor] | None,
    now: Coefficients,
    *,
    measure: bool,
) -> MetricSet:
    """Return the metrics of ``updates_per_rollout`` updates on the same completions, as means over them.

    ``references`` holds each micro-batch's log-probabilities (R, T) under the reference.
    """
    metrics, old = MetricSet(), list[Tensor]()
    sampled = None if learner.engine.is_exact else [sampled_logprobs(part, batch.groups) for part in parts]
    for number in range(learner.settings.objective.updates_per_rollout):
        measured, logprobs = accumulate(
            learner, batch, parts, old, sampled, references, now, measure=measure and number == 0
        )
        if sampled is not None and not old:
            metrics.merge(compare_engine(learner, parts, logprobs, sampled))
        # In the first update the old policy is the present one, so the ratio is exactly 1 and needs no old
        # log-probabilities; what its forward finds is what later updates are held against. The sampler's are
        # not used for that: decoding rounds otherwise than the training forward, and the difference would
        # stand in the ratio as if the policy had changed.
        old = old or logprobs
        parts = [part.after_an_update() for part in parts]
        metrics.merge(measured)
        metrics.add("train/optimizer/grad_norm", apply_update(learner, now))
    return metrics


def compare_engine(
    learner: Learner, parts: Sequence[MicroBatch], old: Sequence[Tensor], sampled: Sequence[Tensor]
) -> MetricSet:
    """Return how far the engine that sampled is from the policy, by each micro-batch's (R, T) of both.

    Raises ``FloatingPointError`` on every process where the mean gap of one is too wide to be rounding.
    """
    rollout, metrics = learner.settings.rollout, MetricSet()
    assert rollout.vllm is not None
    with learner.processes.together():
        for part, own, other in zip(parts, old, sampled, strict=True):
            weights = _correction(rollout.correction, own, other, part.packed.mask())
            metrics.merge(
                engine_metrics(part.packed.mask(), own, other, weights, bound=rollout.correction.bound)
            )
        gap, limit = metrics.values()["train/rollout/logprob_gap/mean"], rollout.vllm.max_logprob_gap
        if not gap <= limit:
            raise FloatingPointError(
                f"rollout.vllm.max_logprob_gap: sampling and training log-probabilities are {gap:.3g} nats "
                f"per token apart, at most {limit:g}; vllm samples from other weights, prompts or pictures"
            )
    return metrics


def _correction(correction: CorrectionSettings, old: Tensor, sampled: Tensor, mask: Tensor) -> Tensor | None:
    """(R, T) weights of what another engine sampled; None where nothing is corrected."""
    if correction.level == "none":
        return None
    return correction_weights(
        old, sampled.to(old.dtype), mask, level=correction.level, bound=correction.bound
    )


def accumulate(
    learner: Learner,
    batch: Batch,
    parts: Sequence[MicroBatch],
    old: Sequence[Tensor],
    sampled: Sequence[Tensor] | None,
    references: Sequence[Tensor] | None,
    now: Coefficients,
    *,
    measure: bool,
) -> tuple[MetricSet, list[Tensor]]:
    """Add the step's whole gradient to the parameters, one micro-batch at a time.

    Return the terms as measured, and each micro-batch's log-probabilities (R, T), detached. ``old`` are those
    of the first update, empty in it, and ``sampled`` those of another engine that sampled: their difference,
    which stays the same in all updates, weighs the policy term. None where the policy sampled for itself.
    """
    metrics, total, logprobs = MetricSet(), 0.0, list[Tensor]()
    own = list(batch.indices)
    advantages, loss_mask = batch.advantages[own], batch.loss_mask[own]

    def forward(number: int, part: MicroBatch) -> tuple[Tensor, LossOutput, Branch, Tensor | None]:
        original, degraded, exact_kl = policy_branches(
            learner.policy.model,
            part,
            needs=now.terms.needs(),
            temperature=learner.settings.rollout.temperature,
            measure=measure,
            branch_checkpointing=learner.settings.model.branch_checkpointing,
        )
        device, dtype = original.logprobs.device, original.logprobs.dtype
        answers = _token_masks(batch.answer_masks, part, device)
        correction = None
        if sampled is not None:
            before = old[number] if old else original.logprobs.detach()
            rule = learner.settings.rollout.correction
            correction = _correction(rule, before, sampled[number], part.packed.mask())
        output = total_loss(
            mask=part.packed.mask() & loss_mask[part.rows].flatten()[:, None].to(device),
            advantages=advantages[part.rows].flatten().to(device, dtype),
            original=original,
            old_logprobs=old[number] if old else None,
            reference_logprobs=None if references is None else references[number],
            degraded=degraded,
            exact_kl=exact_kl,
            counts=batch.counts,
            terms=now.terms,
            answer_mask=answers,
            correction=correction,
            selected=_token_masks(batch.selected, part, device),
            group_size=advantages.shape[1],
        )
        return output.loss, output, original, exact_kl

    for number, part in enumerate(parts):
        # Before the backward pass, which processes may have to take together.
        with learner.processes.together():
            loss, output, original, exact_kl = run_in_forward(
                learner.policy.model, partial(forward, number, part)
            )
        backward(learner.policy.model, loss)
        total += float(loss.detach())
        logprobs.append(original.logprobs.detach())
        metrics.merge(loss_metrics(output))
        if measure:
            metrics.merge(branch_metrics(part.packed.mask(), original, exact_kl, batch.groups[part.rows]))
    # A metric is a mean over processes, but their losses carry global counts already and add up.
    metrics.add_sum("train/loss/total", total * learner.processes.count, 1.0)
    return metrics, logprobs


def _token_masks(masks: Sequence[Sequence[Tensor]], part: MicroBatch, device: torch.device) -> Tensor | None:
    """(R, T) bool of a micro-batch; None where no term asks for it."""
    own = [mask for group in masks[part.rows] for mask in group]
    return pad_sequence(own, batch_first=True).to(device) if own else None


def apply_update(learner: Learner, now: Coefficients) -> float:
    """Return the gradient norm before clipping; gradients were summed over processes and weights updated."""
    model = learner.policy.model
    learner.processes.sum_gradients(model.parameters())
    return apply_gradients(
        model,
        learner.optimizer,
        learning_rate=now.learning_rate,
        max_grad_norm=learner.settings.optimizer.max_grad_norm,
    )


def peak_memory_gib() -> float:
    """Return the largest memory this process has used: of its GPU where it has one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
