"""The step: micro-batches and processes change nothing, nor do terms that are off; terms that are on do."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel as VisionTower,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel as TextModel

from qhk.data.image import load_image
from qhk.evaluation.score import score_images
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.policy.start import start_policy
from qhk.rollout import decode
from qhk.settings.data import WHOLE
from qhk.settings.root import Settings
from qhk.tasks import Task
from qhk.tracking.metrics import MetricSet
from qhk.training import forward, loop
from qhk.training import step as step_module
from qhk.training.batch import Batch
from qhk.training.begin import build_learner
from qhk.training.inputs import Degrader, ExampleReader, build_readers, load, plan, prefetch
from qhk.training.kept import Kept
from qhk.training.loop import fresh_prompts
from qhk.training.optimizer import coefficients
from qhk.training.run import Run
from qhk.training.step import reinforcement_step, sample

Small = Callable[..., Settings]
OpenRun = Callable[[Settings], Run]
Weights = dict[str, torch.Tensor]
NO_TERMS = ("perception=none", "uncertainty=none", "objective.kl_coef=0", "reward.terms.format.weight=1.0")
EXACT_OFF = (
    "perception=exact",
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

        def plan_step(step: int) -> Batch:
            return plan(run.data, step, seed=0, prompts_per_step=settings.training.prompts_per_step)

        for step, batch in enumerate(prefetch(readers, plan_step, range(steps), workers=0)):
            now = coefficients(settings, step + 1, run.horizon)
            fresh = fresh_prompts(run, readers, step=step)
            metrics, _ = reinforcement_step(learner, batch, step=step, now=now, measure=True, fresh=fresh)
    return {name: value.detach().clone() for name, value in policy.model.state_dict().items()}, metrics


def largest_difference(first: Weights, second: Weights) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def start_weights(learning: Weights, frozen: Weights) -> list[str]:
    """Names of the weights that learning moved and freezing kept."""
    return [name for name in frozen if not torch.equal(learning[name], frozen[name]) and "visual" in name]


def length_reward(completion, example) -> float:  # type: ignore[no-untyped-def]
    """A reward that tells the completions of a random policy apart."""
    return -completion.num_tokens / 10 + (len(completion.text) % 7) / 5


def picky_reward(completion, example) -> float:  # type: ignore[no-untyped-def]
    """That reward on every other image; on the others all completions earn alike."""
    return length_reward(completion, example) if sum(map(ord, example.id)) % 2 else 0.0


MIXED = (
    "mixture=degradation",
    "prompt@mixture.degradation.prompt=degradation_short",
    "mixture.degradation.data=miniature_degradation",
    "mixture.degradation.benchmark={miniature_degradation:{limit:4}}",
    "+loading@mixture.degradation.loading=miniature",
    "mixture.degradation.loading.limit=12",
    "mixture.degradation.loading.validation_limit=4",
)
"""A second task, on miniature sets."""


def spread_reward(name: str = "length_reward") -> tuple[str, ...]:
    return (
        "~reward.terms.accuracy",
        "~reward.terms.format",
        f"+reward.terms.length={{_target_: tests.training.test_step.{name}, weight: 1.0}}",
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
    off = ("perception=none", "uncertainty=none", "objective.kl_coef=0")
    places, _ = step(*off, "objective.kl_placement=reward", "objective.entropy_scope=answer")
    no_need, metrics = step(*off, "objective.max_resamples=3")
    assert metrics.values()["train/resample/prompts"] == 0
    for other in (zero, no_strength, places, no_need):
        assert all(torch.equal(plain[name], other[name]) for name in plain)


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
        ("objective.kl_coef=0.5", "objective.kl_placement=reward"),
        ("objective.truncated=mask",),
    ],
    ids=[
        "reference",
        "release",
        "paper",
        "exact",
        "entropy_original",
        "entropy_degraded",
        "entropy_bonus",
        "reference_in_reward",
        "masked",
    ],
)
def test_every_term_that_is_on_moves_the_weights(step: Step, overrides: tuple[str, ...]) -> None:
    base = ("perception=none", "uncertainty=none", "objective.kl_coef=0")
    plain, _ = step(*base)
    moved, _ = step(*base, *overrides)
    assert largest_difference(plain, moved) > 1e-7


CREDITED = {
    "answer": ("objective.credit=answer",),
    "reasoning": ("objective.credit=reasoning",),
    "entropy": ("objective.entropy_share=0.3",),
    "clip_cov": ("objective=clip_cov", "objective.covariance={share: 0.3, low: -100.0, high: 100.0}"),
    "vppo": ("dependency=vppo", "twin=masked"),
    "pgpo": ("dependency=pgpo", "twin=grey"),
}


def test_an_advantage_goes_to_the_tokens_that_are_asked_for(step: Step) -> None:
    """Each rule moves the weights otherwise than plain GRPO, and says what share of the tokens learns."""
    off = ("perception=none", "uncertainty=none", "objective.kl_coef=0")
    plain, metrics = step(*off)
    assert "train/policy/credited_frac" not in metrics.values()
    for name, words in CREDITED.items():
        moved, metrics = step(*off, *words)
        share = metrics.values()["train/policy/credited_frac"]
        # This policy writes no answer yet, so all of a completion is reasoning.
        known = {"answer": 0.0, "reasoning": 1.0, "pgpo": 1.0}
        assert share == known[name] if name in known else 0 < share < 1, name
        assert (largest_difference(plain, moved) > 1e-7) is (name != "reasoning"), name


def test_a_kl_in_the_reward_is_measured_and_is_another_term_than_in_the_loss(step: Step) -> None:
    base = ("perception=none", "uncertainty=none", "objective.kl_coef=0.5", "model.dtype=float64")
    loss, in_loss = step(*base)
    reward, in_reward = step(*base, "objective.kl_placement=reward")
    assert largest_difference(loss, reward) > 1e-7
    one, two = in_loss.values(), in_reward.values()
    assert one["train/reference/kl"] > 0
    assert two["train/reference/kl"] == pytest.approx(one["train/reference/kl"], rel=1e-6)
    per_completion = two["train/reference/kl"] * two["train/completion/tokens/mean"]
    assert two["train/reference/sequence_kl"] == pytest.approx(per_completion)


def test_masked_completions_teach_nothing(step: Step) -> None:
    """Where every completion is cut, no gradient is left, whatever the other terms are."""
    terms = ("objective.kl_coef=0.5", "objective.entropy_coef=0.1", "perception.gamma=0.1")
    _, metrics = step(*terms, "objective.truncated=mask", "rollout.max_new_tokens=2")
    values = metrics.values()
    assert values["train/completion/truncated_frac"] == 1.0
    assert values["train/completion/learning_frac"] == 0.0
    assert values["train/optimizer/grad_norm"] == 0.0 and values["train/loss/total"] == 0.0


def test_a_bonus_on_answers_moves_the_weights_by_another_way(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ("perception=none", "uncertainty=none", "objective.kl_coef=0", "objective.entropy_coef=0.1")
    whole, _ = step(*base)
    plain, _ = step(*base[:-1])
    unanswered, measured = step(*base, "objective.entropy_scope=answer")
    assert all(torch.equal(plain[name], unanswered[name]) for name in plain)
    assert math.isnan(measured.values()["train/policy/entropy_bonus"])
    monkeypatch.setattr(Task, "answer_span", lambda task, text: (1, 3) if len(text) > 3 else None)
    answers, metrics = step(*base, "objective.entropy_scope=answer")
    assert min(largest_difference(answers, other) for other in (plain, whole)) > 1e-7
    assert metrics.values()["train/policy/entropy_bonus"] > 0


def test_groups_of_equal_rewards_give_way_to_fresh_prompts(small: Small, open_run: OpenRun) -> None:
    def resampled(rounds: int, name: str) -> tuple[Weights, dict[str, float]]:
        picky = (*spread_reward("picky_reward"), "perception=none", f"objective.max_resamples={rounds}")
        moved, metrics = one_step(open_run(small(*picky, name=name)))
        return moved, metrics.values()

    plain, before = resampled(0, "plain")
    moved, after = resampled(9, "moved")
    again, _ = resampled(9, "again")
    dull = 4 * before["train/group/equal_reward_frac"]
    assert dull > 0 and "train/resample/prompts" not in before
    assert after["train/group/equal_reward_frac"] == 0.0
    assert after["train/resample/prompts"] >= dull and 1 <= after["train/resample/rounds"] <= 9
    assert largest_difference(plain, moved) > 1e-7
    assert all(torch.equal(moved[name], again[name]) for name in moved)


def test_a_fresh_prompt_is_of_the_task_whose_place_it_takes(small: Small, open_run: OpenRun) -> None:
    """Not whatever stands at that place of the other order: half of a step's places would change hands."""
    run = open_run(small(*MIXED, "perception=none", "objective.max_resamples=3"))
    with run.directory:
        examples = [example for _, example in run.data.train_examples]
        policy = start_policy(run.settings, examples, stages=[run.settings], device="cpu")
        readers = build_readers(run.settings, policy)
    seen: set[tuple[str, str]] = set()
    for step in range(4):
        own = plan(run.data, step, seed=0, prompts_per_step=4).tasks
        for number in (1, 2, 3):
            fresh = fresh_prompts(run, readers, step=step)(number, [0, 1, 2, 3])
            assert fresh.tasks == own
            assert list(fresh.indices) == [0, 1, 2, 3]
            second = fresh_prompts(run, readers, step=step)(number, [2])
            assert second.examples == [fresh.examples[2]]
            seen |= {(task, one.dataset) for task, one in zip(fresh.tasks, fresh.examples, strict=True)}
    assert seen == {("score", "miniature_spaq"), ("degradation", "miniature_degradation")}


def test_fresh_prompts_are_a_function_of_step_round_and_place(small: Small, open_run: OpenRun) -> None:
    run = open_run(small("perception=none", "objective.max_resamples=3"))
    with run.directory:
        examples = [example for part in run.data.train.values() for example in part]
        policy = start_policy(run.settings, examples, stages=[run.settings], device="cpu")
        readers = build_readers(run.settings, policy)

    def names(step: int, number: int, places: list[int]) -> list[str]:
        return [one.id for one in fresh_prompts(run, readers, step=step)(number, places).examples]

    whole = names(2, 1, [0, 1, 2, 3])
    assert names(2, 1, [1, 3]) == [whole[1], whole[3]]
    rounds = [tuple(names(step, number, [0, 1, 2, 3])) for step in range(2) for number in (1, 2, 3)]
    assert len(set(rounds)) == 6
    passes = [name for part in rounds[:3] for name in part]
    assert len(set(passes)) == 12, "twelve images, four to a round: no image comes twice in three rounds"
    ordinary = [one.id for one in plan(run.data, 0, seed=0, prompts_per_step=4).examples]
    assert list(rounds[0]) != ordinary


def test_micro_batches_change_nothing_but_rounding(step: Step) -> None:
    exact = ("model.dtype=float64", "perception=exact", "perception.gamma=0.1")
    exact += ("objective.kl_coef=0.3", "objective.kl_placement=reward")
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


@pytest.mark.parametrize(
    ("frozen", "size"), [(True, 2), (False, 2), (False, 4)], ids=["frozen", "learning", "one micro-batch"]
)
def test_pictures_are_encoded_as_often_as_weights_differ(
    step: Step, monkeypatch: pytest.MonkeyPatch, frozen: bool, size: int
) -> None:
    """Four prompts, two updates: a frozen tower sees each picture and each twin once in the whole step.

    One that learns sees them once per pass, and the first update shares the rollout's where all are together.
    Each pass over a micro-batch shows the language model every prompt once and every completion once.
    """
    seen: Counter[str] = Counter()

    def count(owner: Any, name: str, add: Callable[..., None]) -> None:
        whole = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            result = whole(*args, **kwargs)
            add(result, *args, **kwargs)
            return result

        monkeypatch.setattr(owner, name, counted)

    def prompts(prompt: EncodedPrompt, *args: Any) -> None:
        seen.update({"prompts": 1, "prompt tokens": prompt.num_tokens, "picture": len(prompt.pixel_values)})

    def text(result: Any, model: Any, *, inputs_embeds: torch.Tensor, **kwargs: Any) -> None:
        seen["decoded" if "decoding" in kwargs else "tokens"] += inputs_embeds[..., 0].numel()

    count(forward, "encode_images", lambda result, model, prompts: seen.update(training=len(prompts)))
    count(decode, "encode_images", lambda result, model, prompts: seen.update(rollout=len(prompts)))
    count(VisionTower, "forward", lambda result, tower, pixels, **kwargs: seen.update(patches=len(pixels)))
    count(TextModel, "forward", text)
    count(PromptEncoder, "encode", prompts)
    words = ("perception=exact", "perception.gamma=0.1", "objective.kl_coef=0.5")
    words += ("objective.updates_per_rollout=2", f"model.freeze_vision={str(frozen).lower()}")
    _, metrics = step(*words, f"training.prompts_per_device={size}")
    policy_forwards, reference_forwards = 2 * (1 + 1), 1
    scored, shared = policy_forwards + reference_forwards, int(size == 4)
    assert seen["prompts"] == 4
    assert seen["training"] == 4 * (2 if frozen else scored)
    assert seen["rollout"] == (0 if frozen or shared else 4)
    assert seen["patches"] == seen["picture"] * (2 if frozen else scored + 1 - shared)
    completions = round(12 * metrics.values()["train/completion/tokens/mean"])
    assert seen["tokens"] == seen["prompt tokens"] + scored * (seen["prompt tokens"] + completions)


@dataclass(frozen=True)
class Encoded:
    """A prompt without tensors."""

    key: tuple[Any, ...]

    def with_pixels(self, *pixels: Any, **key: Any) -> Any:
        return pixels


def test_twins_are_made_where_loss_or_log_looks_at_them(
    small: Small, open_run: OpenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no coefficient is left, in the logged steps alone; a step that needs none reads no twin."""
    words = ("training.log_every=2", "training.duration={steps: 5, epochs: null}", "perception=exact")
    run = open_run(small(*words, *EXACT_OFF[1:]))
    assert [loop._twin_factor(run, step) for step in range(5)] == [None, 1.0, None, 1.0, 1.0]
    needed = open_run(small(*words, *EXACT_OFF[1:3], "perception.eta_degraded=0.1", name="needed"))
    assert [loop._twin_factor(needed, step) for step in range(5)] == [1.0] * 5
    encoder: Any = SimpleNamespace(encode=lambda messages, images: Encoded(key=()))
    encoder.encode_pixels = lambda images: images
    reader = ExampleReader(
        encoder,
        task=run.settings,  # type: ignore[arg-type]  # not looked at
        messages=(),
        answer_decimals=2,
        augmentation="none",
        framing=WHOLE,
        seed=0,
        degrader=Degrader(degrade=lambda *place: [place[-1]], each_epoch=False),  # type: ignore[list-item]
        kept=Kept(0),
    )
    example: Any = SimpleNamespace(dataset="set", id="one", images=(), seconds=())
    assert reader.training_prompt(example, epoch=0, twin_factor=0.5)[1] == (0.5,)
    assert reader.training_prompt(example, epoch=0, twin_factor=None)[1] is None


def test_what_is_shown_is_one_for_training_evaluation_and_scoring(small: Small, open_run: OpenRun) -> None:
    """Turned and drawn anew in each pass of training, a prepared twin with it; the middle elsewhere."""
    words = ("perception=exact", "loading.augmentation=dihedral", "framing=crop", "framing.side=32")
    run = open_run(small(*words, "model.min_pixels=1024"))
    example = run.data.train_examples[0][1]
    picture = load_image(example.image)
    with run.directory:
        policy = start_policy(run.settings, [example], stages=[run.settings], device="cpu")
        reader = build_readers(run.settings, policy)["score"]
    middle = policy.encoder.encode_pixels([picture.crop((16, 16, 48, 48))])[0]
    assert picture.size == (64, 64) and middle.shape[0] == 16
    assert torch.equal(reader.prompt(example).pixel_values, middle)
    scored = list[torch.Tensor]()
    encode = policy.encoder.encode

    def seen(*asked: Any) -> EncodedPrompt:
        prompt = encode(*asked)
        scored.append(prompt.pixel_values)
        return prompt

    policy.encoder.encode = seen  # type: ignore[method-assign]
    list(score_images(policy, run.settings, [example.image], num_samples=1))
    assert torch.equal(scored[0], middle)

    paired = replace(example, twin=example.image)
    passes = [reader.training_prompt(paired, epoch=epoch, twin_factor=1.0) for epoch in (0, 0, 1, 2, 3)]
    for prompt, twin in passes:
        assert twin is not None and torch.equal(prompt.pixel_values, twin.pixel_values)
    first, again, *others = (prompt.pixel_values for prompt, _ in passes)
    assert torch.equal(first, again) and not any(torch.equal(first, other) for other in others)


def test_going_on_from_the_features_of_the_rollout_changes_no_bit(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("perception=exact", "perception.gamma=0.1", "objective.kl_coef=0.5")
    words += ("training.prompts_per_device=4", "objective.updates_per_rollout=2")
    shared, _ = step(*words)
    monkeypatch.setattr(step_module, "goes_on_from_rollout", lambda settings, prompts: False)
    anew, _ = step(*words)
    assert all(torch.equal(shared[name], anew[name]) for name in anew)


def test_a_rollout_depends_on_seed_and_step_alone(small: Small, open_run: OpenRun) -> None:
    run = open_run(small("perception=none", *spread_reward()))
    with run.directory:
        examples = [example for _, example in run.data.train_examples]
        policy = start_policy(run.settings, examples, stages=[run.settings], device="cpu")
        learner, readers = (
            build_learner(run, policy, start=lambda: copy.deepcopy(policy.model)),
            build_readers(run.settings, policy),
        )
        batches = [load(plan(run.data, step, seed=0, prompts_per_step=4), readers) for step in range(2)]

        def ids(which: int, step: int, part: range = range(4)) -> list[list[int]]:
            sampled = sample(learner, batches[which].select(part), step=step)
            return [completion.tolist() for group in sampled.groups for completion in group.completion_ids]

        first = ids(0, 0)
        torch.manual_seed(99)
        ids(1, 1)
        assert ids(0, 0) == first
        assert ids(0, 1) != first
        assert ids(0, 0, range(2, 4)) == first[6:]


EVERYTHING = (
    "objective.kl_coef=0.1",
    "objective.kl_placement=reward",
    "objective.truncated=mask",
    "objective.max_resamples=2",
    "objective.entropy_coef=0.01",
    "objective.entropy_scope=answer",
    "uncertainty.history_decay=0.5",
)


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["length_reward", "picky_reward"])
def test_two_processes_train_the_same_policy_as_one(
    tmp_path: Path, miniature_cache: Path, reward: str
) -> None:
    """The real command under torchrun: the weights of two processes equal those of one to rounding."""
    from safetensors.torch import load_file

    from tests.training.conftest import SMALL

    def launch(name: str, *prefix: str, form: str) -> Weights:
        words = [
            *SMALL,
            *spread_reward(reward),
            f"paths.outputs={tmp_path}",
            f"paths.cache={miniature_cache}",
        ]
        words += EVERYTHING if reward == "picky_reward" else ()
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
