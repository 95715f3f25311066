"""The step: micro-batches and processes change nothing, nor do terms that are off; terms that are on do."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qhk.settings import Settings
from qhk.tracking.metrics import MetricSet
from qhk.training.begin import build_learner
from qhk.training.inputs import prefetch
from qhk.training.optimizer import coefficients
from qhk.training.run import Run
from qhk.training.start import build_readers, start_policy
from qhk.training.step import reinforcement_step, roll_out

Small = Callable[..., Settings]
OpenRun = Callable[[Settings], Run]
Weights = dict[str, torch.Tensor]
QUIET = ("perception=none", "uncertainty=none", "objective.kl_coef=0", "reward.terms.format.weight=1.0")
EXACT_OFF = (
    "perception=exact_tiny",
    "perception.gamma=0",
    "perception.eta_original=0",
    "perception.eta_degraded=0",
)


def one_step(run: Run, steps: int = 1) -> tuple[Weights, MetricSet]:
    """Weights after a few steps from fresh weights, and the last step's metrics."""
    torch.set_num_threads(1)
    settings = run.settings
    with run.directory:
        examples = [example for _, example in run.data.train_examples]
        policy = start_policy(settings, examples, stages=[settings], device="cpu")
        learner = build_learner(run, policy, start=lambda: copy.deepcopy(policy.model))
        if learner.reference is not None:
            with torch.no_grad():
                for parameter in learner.reference.parameters():
                    parameter.mul_(1.01)
        readers = build_readers(settings, policy)

        def plan(step: int) -> list:  # type: ignore[type-arg]
            return run.data.plan(step, seed=0, prompts_per_step=settings.training.prompts_per_step)

        for step, prompts in enumerate(prefetch(readers, plan, range(steps), workers=0)):
            now = coefficients(settings, step + 1, run.horizon)
            metrics, _ = reinforcement_step(learner, prompts, step=step, now=now, measure=True)
    return {name: value.detach().clone() for name, value in policy.model.state_dict().items()}, metrics


def largest_difference(first: Weights, second: Weights) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def start_weights(learning: Weights, frozen: Weights) -> list[str]:
    """Names of the weights that learning moved and freezing kept."""
    return [name for name in frozen if not torch.equal(learning[name], frozen[name]) and "visual" in name]


def length_reward(completion, example) -> float:  # type: ignore[no-untyped-def]
    """A reward that tells the completions of a random policy apart."""
    return -completion.num_tokens / 10 + (len(completion.text) % 7) / 5


def spread_reward() -> tuple[str, ...]:
    return (
        "~reward.terms.accuracy",
        "~reward.terms.format",
        "+reward.terms.length={_target_: tests.training.test_step.length_reward, weight: 1.0}",
    )


@pytest.fixture
def step(small: Small, open_run: OpenRun) -> Callable[..., tuple[Weights, MetricSet]]:
    """One step of a run with a reward of its own and the given overrides."""
    counter = iter(range(100))

    def take(*overrides: str) -> tuple[Weights, MetricSet]:
        settings = small(*spread_reward(), *overrides, name=f"run{next(counter)}")
        return one_step(open_run(settings))

    return take


Step = Callable[..., tuple[Weights, MetricSet]]


def test_terms_that_are_off_change_no_bit(step: Step) -> None:
    plain, _ = step("perception=none", "uncertainty=none", "objective.kl_coef=0")
    zero, _ = step(*EXACT_OFF, "uncertainty=none", "objective.kl_coef=0")
    no_strength, _ = step("perception=none", "uncertainty.alpha=0", "objective.kl_coef=0")
    assert all(torch.equal(plain[name], zero[name]) for name in plain)
    assert all(torch.equal(plain[name], no_strength[name]) for name in plain)


@pytest.mark.parametrize(
    "overrides",
    [
        ("objective.kl_coef=0.5",),
        ("perception=release", "perception.gamma=0.1"),
        ("perception=paper", "perception.gamma=0.1"),
        (
            "perception=exact",
            "perception.gamma=0.1",
            "perception.eta_original=0",
            "perception.eta_degraded=0",
        ),
        (
            "perception=exact",
            "perception.gamma=0",
            "perception.eta_original=0.1",
            "perception.eta_degraded=0",
        ),
        (
            "perception=exact",
            "perception.gamma=0",
            "perception.eta_original=0",
            "perception.eta_degraded=0.1",
        ),
        ("objective.entropy_coef=0.1",),
    ],
    ids=["reference", "release", "paper", "exact", "entropy_original", "entropy_degraded", "entropy_bonus"],
)
def test_every_term_that_is_on_moves_the_weights(step: Step, overrides: tuple[str, ...]) -> None:
    base = ("perception=none", "uncertainty=none", "objective.kl_coef=0")
    plain, _ = step(*base)
    moved, _ = step(*base, *overrides)
    assert largest_difference(plain, moved) > 1e-7


def test_micro_batches_change_nothing_but_rounding(step: Step) -> None:
    exact = ("model.dtype=float64", "perception=exact_tiny", "perception.gamma=0.1")
    whole, one = step(*exact, "training.prompts_per_device=4")
    parts, two = step(*exact, "training.prompts_per_device=1")
    assert (
        largest_difference(whole, parts) < 1e-6
    )  # AdamW's first step is the gradient's sign: tiny ones may flip
    assert math.isclose(one.values()["train/loss/total"], two.values()["train/loss/total"], abs_tol=1e-7)


def test_several_updates_per_rollout_move_the_ratio_and_clip(step: Step) -> None:
    narrow = ("objective.clip_low=1e-4", "objective.clip_high=1e-4", "uncertainty=none")
    once, one = step(*narrow, "objective.updates_per_rollout=1")
    thrice, three = step(*narrow, "objective.updates_per_rollout=3")
    assert largest_difference(once, thrice) > 1e-6
    assert one.values()["train/policy/ratio_clipped_frac"] == 0.0
    assert three.values()["train/policy/ratio_clipped_frac"] > 0.0


def test_a_frozen_tower_is_encoded_once_and_stays(step: Step) -> None:
    learning, _ = step("objective.kl_coef=0.5")
    frozen, metrics = step("objective.kl_coef=0.5", "model.freeze_vision=true")
    start = start_weights(learning, frozen)
    assert start and all("visual" in name for name in start)
    assert metrics.values()["train/reference/kl"] >= 0.0


def test_a_rollout_depends_on_seed_and_step_alone(small: Small, open_run: OpenRun) -> None:
    run = open_run(small("perception=none", *spread_reward()))
    with run.directory:
        examples = [example for _, example in run.data.train_examples]
        policy = start_policy(run.settings, examples, stages=[run.settings], device="cpu")
        learner, readers = (
            build_learner(run, policy, start=lambda: copy.deepcopy(policy.model)),
            build_readers(run.settings, policy),
        )
        plan = [run.data.plan(step, seed=0, prompts_per_step=4) for step in range(2)]
        prompts = [[readers[p.task].step_prompt(p) for p in planned] for planned in plan]

        def ids(which: int, step: int, part: slice = slice(None)) -> list[list[int]]:
            groups = roll_out(learner, prompts[which][part], step=step)
            return [completion.tolist() for group in groups for completion in group.completion_ids]

        first = ids(0, 0)
        torch.manual_seed(99)
        ids(1, 1)
        assert ids(0, 0) == first
        assert ids(0, 1) != first
        assert ids(0, 0, slice(2, 4)) == first[6:]


@pytest.mark.slow
def test_two_processes_train_the_same_policy_as_one(tmp_path: Path, miniature_cache: Path) -> None:
    """The real command under torchrun: the weights of two processes equal those of one to rounding."""
    from safetensors.torch import load_file

    from tests.training.conftest import SMALL

    def launch(name: str, *prefix: str, form: str) -> Weights:
        words = [*SMALL, *spread_reward(), f"paths.outputs={tmp_path}", f"paths.cache={miniature_cache}"]
        words += [f"name={name}", f"distributed={form}", "model.dtype=float64", "perception.gamma=0.1"]
        command = [*prefix, "-m", "qhk.cli.main", "train", *words]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
        return load_file(tmp_path / "default" / name / "seed0" / "checkpoints" / "last" / "model.safetensors")

    alone = launch("alone", sys.executable, form="single")
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29611")
    together = launch("together", *torchrun, form="ddp")
    start = load_file(
        tmp_path / "default" / "alone" / "seed0" / "checkpoints" / "step_000000" / "model.safetensors"
    )
    assert largest_difference(alone, start) > 1e-4
    assert largest_difference(alone, together) < 1e-5
