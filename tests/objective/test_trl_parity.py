"""Parity with TRL: our loss and gradient against arrays that its own trainer gave (record_trl.py).

How TRL's normalisations map to ours, micro-batches being summed in both:

    grpo     mean over a completion's tokens, then over a micro-batch's completions, over accumulation steps
             = ``sequence_mean`` with the update's completions (micro-batches of equal size)
    dapo     sum over the tokens of all ranks and micro-batches of the update = ``token_mean``
    dr_grpo  sum over completions times ``max_completion_length`` = ``constant`` with that length
    bnpo     mean over the tokens of each micro-batch, then over micro-batches; ``token_mean`` for one alone
    luspo    sum over a completion's tokens, mean over completions = ``constant`` with length 1
    cispo    as dapo, and sapo as grpo; CISPO's bound is that of the ratio, ours what it may exceed 1 by

TRL's KL is k3, its advantage epsilon 1e-4. Recorded with ``use_bias_correction_kl`` off: by default TRL
multiplies the KL by the importance ratio (arXiv 2512.02556), which changes its gradient even where the ratio
is 1. The losses take the advantages that TRL computed; our own are compared with them apart.

Where we differ, a test states by exactly how much: that ratio, bnpo over several micro-batches, the
normalisation of the entropy bonus, groups of equal rewards, and TRL's float32 factor n / (n - 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qhk.config.compose import compose_config, plain_config
from qhk.objective.advantage import Scaling, group_advantages
from qhk.objective.aggregate import Aggregation, Counts, token_weights
from qhk.objective.reference import kl_estimate
from qhk.objective.terms import Terms
from qhk.objective.total import Branch, LossOutput, total_loss
from tests.conftest import repository_catalogue

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("trl_parity.json").read_text(encoding="utf-8"))
HEADER, SCENE = RECORDED["header"], RECORDED["scene"]
CASES: dict[str, dict[str, Any]] = {case["name"]: case for case in RECORDED["cases"]}
PRESETS = ("grpo", "clip_higher", "dapo", "dr_grpo", "gspo", "cispo", "sapo", "luspo")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
# Of the largest element. Float64 was recorded with 14 digits, and terms of the loss nearly cancel; float32
# sums some 50 numbers in another order.
TOLERANCE = {"float64": 5e-13, "float32": 4e-7}
AGGREGATIONS: dict[str, Aggregation] = {
    "grpo": "sequence_mean",
    "bnpo": "token_mean",
    "dapo": "token_mean",
    "dr_grpo": "constant",
    "luspo": "constant",
    "cispo": "token_mean",
    "sapo": "sequence_mean",
}
SCALINGS: dict[str, Scaling] = {"group": "group_std", "batch": "batch_std", "none": "none"}
DIFFERENT = ("bnpo/two_micro_batches", "grpo/entropy_bonus", "grpo/weighted_kl/0", "grpo/weighted_kl/2")
ADVANTAGES: dict[tuple[str, str, str], list[float]] = {
    (record["rewards"], SCALINGS[record["scale_rewards"]], record["dtype"]): record["advantages"]
    for record in RECORDED["advantages"]
}
REWARDS: dict[str, list[float]] = {**RECORDED["reward_sets"], "scene": SCENE["rewards"]}
MASK = torch.tensor(SCENE["mask"], dtype=torch.bool)
COMPLETE = torch.tensor([row not in SCENE["truncated"] for row in range(len(MASK))])
BESIDE_THE_LOSS = (
    *("updates_per_rollout", "max_resamples", "minimum_std", "advantage_rewards"),
    *("soft_positive", "soft_negative", "credit", "entropy_share", "covariance"),
)


@cache
def objective_of_preset(preset: str) -> dict[str, Any]:
    """The option of the objective group, its generation budget being the one that TRL was given."""
    budget = f"rollout.max_new_tokens={HEADER['max_completion_length']}"
    words = [f"objective={preset}", "strengths=published", budget]
    config = compose_config("train", words, repository_catalogue())
    values: dict[str, Any] = plain_config(config)["objective"]
    return values


def objective_of_trl(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Our names for the arguments that TRL was given; those left out have TRL's defaults."""
    kind, high = arguments["loss_type"], arguments["epsilon_high"]
    return {
        "surrogate": kind if kind in ("cispo", "sapo") else "clip",
        "ratio": arguments.get("importance_sampling_level", "token"),
        "clip_low": None if kind in ("cispo", "sapo") else arguments["epsilon"],
        "clip_high": high - 1.0 if kind == "cispo" else None if kind == "sapo" else high,
        "aggregation": AGGREGATIONS[kind],
        "constant_length": 1 if kind == "luspo" else HEADER["max_completion_length"],
        "advantage_scaling": SCALINGS[arguments["scale_rewards"]],
        "advantage_epsilon": 1e-4,
        "kl_coef": arguments.get("beta", 0.0),
        "kl_estimator": "k3",
        "kl_placement": "loss",
        "entropy_coef": arguments.get("entropy_coef", 0.0),
        "entropy_scope": "completion",
        "truncated": "mask" if arguments.get("mask_truncated_completions") else "keep",
    }


def objective_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's values come from its YAML, not from what TRL was told."""
    return objective_of_preset(case["preset"]) if case["preset"] else objective_of_trl(case["trl"])


def terms_of(objective: Mapping[str, Any]) -> Terms:
    return Terms(
        surrogate=objective["surrogate"],
        # TRL makes both numbers float32, whatever it computes in.
        soft_negative=torch.tensor(1.05, dtype=torch.float32).item(),
        ratio=objective["ratio"],
        clip_low=objective["clip_low"],
        clip_high=objective["clip_high"],
        aggregation=objective["aggregation"],
        constant_length=objective["constant_length"],
        kl_coef=objective["kl_coef"],
        kl_estimator=objective["kl_estimator"],
        entropy_coef=objective["entropy_coef"],
        entropy_scope="completion",
        perception="none",
        gamma=0.0,
        exponent_bound=20.0,
        value_bound=10.0,
        perception_aggregation="token_mean",
        entropy="off",
        eta_original=0.0,
        eta_degraded=0.0,
    )


def scene(name: str, dtype: str) -> Tensor:
    return torch.tensor(SCENE[name], dtype=DTYPES[dtype])


class Ours:
    """Our loss of a case, summed over its micro-batches, and its gradients."""

    def __init__(self, case: Mapping[str, Any], *, local_counts: bool = False, **changes: Any) -> None:
        self.dtype, self.update = case["dtype"], case["update"]
        current = "old_logprobs" if self.update == 0 else f"logprobs_{self.update}"
        self.logprobs = scene(current, self.dtype).requires_grad_()
        self.entropy = scene("entropy", self.dtype).requires_grad_()
        objective = {**objective_of(case), **changes}
        advantages = ADVANTAGES["scene", objective["advantage_scaling"], self.dtype]
        self.advantages = torch.tensor(advantages, dtype=DTYPES[self.dtype])
        self.mask = MASK & COMPLETE[:, None] if objective["truncated"] == "mask" else MASK
        size = len(MASK) // case["micro_batches"]
        parts = [slice(start, start + size) for start in range(0, len(MASK), size)]
        self.outputs = [
            self._loss(terms_of(objective), rows, self.mask[rows] if local_counts else self.mask)
            for rows in parts
        ]
        self.loss = torch.stack([output.loss for output in self.outputs]).sum()
        self.loss.backward()  # type: ignore[no-untyped-call]

    def _loss(self, terms: Terms, rows: slice, counted: Tensor) -> LossOutput:
        old = None if self.update == 0 else scene("old_logprobs", self.dtype)[rows]
        return total_loss(
            mask=self.mask[rows],
            advantages=self.advantages[rows],
            original=Branch(logprobs=self.logprobs[rows], entropy=self.entropy[rows]),
            old_logprobs=old,
            reference_logprobs=scene("reference_logprobs", self.dtype)[rows],
            degraded=None,
            exact_kl=None,
            counts=Counts(sequences=len(counted), tokens=int(counted.sum())),
            terms=terms,
        )


def errors(loss: Tensor, gradient: Tensor, case: Mapping[str, Any]) -> tuple[float, float]:
    """Largest absolute errors of loss and gradient, each over the largest element of TRL's."""
    expected = torch.tensor(case["gradient"], dtype=gradient.dtype)
    loss_error = abs(loss.item() - case["loss"]) / abs(case["loss"])
    return loss_error, float((gradient[MASK] - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENT])
def test_loss_and_gradient_are_trl_s(name: str) -> None:
    case = CASES[name]
    ours = Ours(case)
    assert ours.logprobs.grad is not None and ours.loss.dtype == DTYPES[case["dtype"]]
    loss_error, gradient_error = errors(ours.loss, ours.logprobs.grad, case)
    limit = TOLERANCE[case["dtype"]]
    message = f"{name}: relative error of the loss {loss_error:.1e}, of the gradient {gradient_error:.1e}"
    assert max(loss_error, gradient_error) <= limit, f"{message}; at most {limit:.0e}"
    assert not ours.logprobs.grad[~ours.mask].any()


@pytest.mark.parametrize("preset", PRESETS)
def test_recording_used_the_preset_as_it_is_now(preset: str) -> None:
    assert RECORDED["presets"][preset] == objective_of_preset(preset), f"re-record: {HEADER['command']}"
    recorded = [case for case in CASES.values() if case["preset"] == preset]
    assert {case["update"] for case in recorded} == {0, 1, 2}
    for case in recorded:
        assert objective_of_trl(case["trl"]) == {
            **{
                key: value for key, value in objective_of_preset(preset).items() if key not in BESIDE_THE_LOSS
            },
            "constant_length": 1 if preset == "luspo" else HEADER["max_completion_length"],
        }


CLIPPED = [
    name
    for name, case in CASES.items()
    if case["update"] == 2 and case["trl"]["loss_type"] not in ("cispo", "sapo")
]


@pytest.mark.parametrize("name", CLIPPED)
def test_each_bound_clips_some_tokens(name: str) -> None:
    def num_clipped(**changes: Any) -> float:
        return sum(output.sums["clipped"][0] for output in Ours(CASES[name], **changes).outputs)

    low, high, both = num_clipped(clip_high=None), num_clipped(clip_low=None), num_clipped()
    assert low > 0 and high > 0 and low + high == both < int(MASK.sum())


def test_scene_has_unequal_lengths_holes_and_an_empty_completion() -> None:
    lengths = MASK.sum(dim=1)
    assert len(set(lengths.tolist())) >= 4 and 0 in lengths
    assert bool((MASK[:, 1:] & ~MASK[:, :-1]).any()), "no completion has a hole"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaling", SCALINGS.values())
@pytest.mark.parametrize("rewards", REWARDS)
def test_advantages_are_trl_s(rewards: str, scaling: Scaling, dtype: str) -> None:
    """In float64 but for TRL's factor n / (n - 1) of the variance, which it computes in float32 always."""
    values = torch.tensor(REWARDS[rewards], dtype=DTYPES[dtype]).view(-1, HEADER["group_size"])
    ours = group_advantages(values, scaling=scaling, epsilon=1e-4)
    if dtype == "float64" and scaling != "none":
        count = values.numel() if scaling == "batch_std" else HEADER["group_size"]
        std = values.std() if scaling == "batch_std" else values.std(dim=1, keepdim=True)
        rounded = (torch.tensor(count, dtype=torch.float32) / (count - 1)).item()
        factor = math.sqrt(rounded * (count - 1) / count)
        ours = ours * (std + 1e-4) / (std * factor + 1e-4)
    expected = torch.tensor(ADVANTAGES[rewards, scaling, dtype], dtype=DTYPES[dtype])
    error = float((ours.flatten() - expected).abs().max() / expected.abs().max())
    # Rewards that differ by 1e-4 keep three digits in float32 once their mean is gone and their std divides.
    limit = 5e-13 if dtype == "float64" else 3e-4 if (rewards, scaling) == ("varied", "group_std") else 4e-7
    assert error <= limit, f"relative error {error:.1e}; at most {limit:.0e}"


def test_group_of_equal_rewards_is_exactly_zero_where_trl_keeps_a_rounding() -> None:
    size = HEADER["group_size"]
    rewards = torch.tensor(REWARDS["with_equal_group"], dtype=torch.float64).view(-1, size)
    for scaling in SCALINGS.values():
        assert not group_advantages(rewards, scaling=scaling, epsilon=1e-4)[1].any()
        theirs = ADVANTAGES["with_equal_group", scaling, "float64"][size:]
        assert 0.0 < max(map(abs, theirs)) < 1e-12


def test_bnpo_over_micro_batches_is_the_mean_of_their_token_means() -> None:
    """token_mean weighs every token of the update alike; TRL's bnpo every micro-batch."""
    case = CASES["bnpo/two_micro_batches"]
    local, ours = Ours(case, local_counts=True), Ours(case)
    assert local.logprobs.grad is not None
    steps = case["micro_batches"]
    assert max(errors(local.loss / steps, local.logprobs.grad / steps, case)) <= TOLERANCE["float64"]
    assert abs(ours.loss.item() / case["loss"] - 1.0) > 1e-3


def test_entropy_bonus_follows_the_aggregation_where_trl_s_is_always_a_token_mean() -> None:
    """With sequence_mean, ours minus TRL's is the coefficient times (token mean - sequence mean)."""
    case = CASES["grpo/entropy_bonus"]
    ours = Ours(case)
    assert ours.logprobs.grad is not None and ours.entropy.grad is not None
    entropy = torch.where(MASK, scene("entropy", "float64"), 0.0)
    lengths = MASK.sum(dim=1, keepdim=True).clamp(min=1).double()
    coefficient = case["trl"]["entropy_coef"]
    difference = coefficient * (entropy.sum() / MASK.sum() - (entropy / lengths).sum() / len(MASK))
    assert max(errors(ours.loss - difference, ours.logprobs.grad, case)) <= TOLERANCE["float64"]
    expected = torch.tensor(case["entropy_gradient"], dtype=torch.float64)
    shift = coefficient * (1.0 / int(MASK.sum()) - 1.0 / (lengths * len(MASK))).expand_as(entropy)[MASK]
    torch.testing.assert_close(ours.entropy.grad[MASK] - shift, expected, rtol=1e-12, atol=0.0)
    assert abs(difference.item()) > 1e-4


def test_entropy_bonus_with_token_mean_is_trl_s() -> None:
    case = CASES["dapo/entropy_bonus"]
    ours = Ours(case)
    assert ours.entropy.grad is not None
    expected = torch.tensor(case["entropy_gradient"], dtype=torch.float64)
    torch.testing.assert_close(ours.entropy.grad[MASK], expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("update", [0, 2])
def test_trl_s_default_kl_is_ours_times_the_ratio(update: int) -> None:
    """The difference is ``kl_coef * KL * (ratio - 1)``, which has a gradient even where the ratio is 1."""
    case = CASES[f"grpo/weighted_kl/{update}"]
    ours = Ours(case)
    assert ours.logprobs.grad is not None
    plain = ours.logprobs.grad.clone()
    counts = Counts(sequences=len(MASK), tokens=int(MASK.sum()))
    weights = token_weights(MASK, aggregation="sequence_mean", counts=counts, constant_length=None)
    divergence = kl_estimate(ours.logprobs, scene("reference_logprobs", "float64"), estimator="k3")
    ratio = (ours.logprobs - scene("old_logprobs", "float64")).exp()
    difference = case["trl"]["beta"] * (weights * divergence * (ratio - 1.0)).sum()
    difference.backward()
    assert max(errors(ours.loss + difference, ours.logprobs.grad, case)) <= TOLERANCE["float64"]
    assert errors(ours.loss, plain, case)[1] > 1e-3
