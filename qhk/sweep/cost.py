"""An estimate of what a run will cost, from its settings: operations and bytes over a machine's peaks.

The formulas are a roofline of the packed step: image and prompt once per group, completions behind them, the
head at completion tokens, decoding bound by memory (weights and keys) or arithmetic, whichever is slower.
Reading images, communication and all that is no matrix product are left out; ``efficiency`` stands for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qhk.policy.shape import ANSWER_TOKENS, Shape, model_shape, picture_patches, prompt_tokens
from qhk.settings.base import Readout
from qhk.settings.data import DatasetSettings
from qhk.settings.root import Settings
from qhk.settings.sweep import MachineSettings
from qhk.tasks import build_task

UNKNOWN_IMAGES = 5000
"""Assumed images of a part that nothing is known of."""

BYTES = 2
"""Per weight and per key, in decoding on an accelerator."""


def kv_bytes(shape: Shape) -> float:
    """Return the bytes of keys and values per token."""
    return 2.0 * shape.layers * shape.kv_width * BYTES


@dataclass(frozen=True, kw_only=True)
class Work:
    """Arithmetic in operations, and decoding in device seconds (it may be bound by memory)."""

    flop: float
    decode_s: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(flop=self.flop + other.flop, decode_s=self.decode_s + other.decode_s)

    def times(self, count: float) -> Work:
        return Work(flop=self.flop * count, decode_s=self.decode_s * count)


def vision_flop(shape: Shape, patches: float) -> float:
    """Return ``2 V p + 2 M p / 4 + 4 h p (64 windowed + p full)`` for p patches."""
    windowed = shape.vision_layers - shape.full
    attention = 4 * shape.vision_hidden * patches * (64 * windowed + patches * shape.full)
    return 2 * shape.vision * patches + 2 * shape.merger * patches / 4 + attention


def prefix_flop(shape: Shape, prompt: float) -> float:
    """Return ``2 N P + 4 d L P^2 / 2`` for a prompt of P tokens."""
    return 2 * shape.text * prompt + 4 * shape.queries * shape.layers * prompt**2 / 2


def completions_flop(shape: Shape, prompt: float, group: int, tokens: float) -> float:
    """Return ``2 N G C + 4 d L G (C P + C^2 / 2)`` for G completions of C tokens."""
    attention = 4 * shape.queries * shape.layers * group * (tokens * prompt + tokens**2 / 2)
    return 2 * shape.text * group * tokens + attention


def head_flop(shape: Shape, group: int, tokens: float) -> float:
    """Return ``2 H G C``: the head at completion tokens alone."""
    return 2 * shape.head * group * tokens


def decode_step_s(
    shape: Shape, machine: MachineSettings, *, prompts: float, prompt: float, group: int, done: float
) -> float:
    """Return the seconds of one decoding step of ``prompts`` groups together, after ``done`` tokens."""
    read = BYTES * (shape.text + shape.head) + kv_bytes(shape) * (prompts * prompt + prompts * group * done)
    flop = 2 * (shape.text + shape.head) * prompts * group
    return max(read / (machine.memory_tb_s * 1e12), flop / (machine.compute_tflop_s * 1e12))


def estimate_run(
    settings: Settings, machine: MachineSettings, *, answer_tokens: float = ANSWER_TOKENS
) -> dict[str, float] | None:
    """Return the device hours of one run by part, none of it measured; None for a model of unknown size.

    Answers have ``answer_tokens``, or as many as their limit where that is less: with infinity, the limit.
    """
    shape = model_shape(settings.model)
    if shape is None:
        return None
    group = _Group(shape=shape, settings=settings, machine=machine, answer_tokens=answer_tokens)
    training, cold, rollout = settings.training, settings.cold_start, settings.rollout
    steps, limit = training_steps(settings), settings.loading.validation_limit or 200
    validations = steps // training.validate_every if settings.loading.validation_fraction else 0
    work = Work(flop=group.update_flop() * settings.objective.updates_per_rollout)
    work += group.rollout({rollout.max_new_tokens: rollout.group_size})
    if training.learner == "supervised":
        work = Work(flop=(4.0 if settings.model.gradient_checkpointing else 3.0) * group.score_flop(1))
    parts = {
        "cold start": Work(flop=3 * group.score_flop(1)).times(cold.steps * cold.batch_size),
        "training": work.times(training.prompts_per_step).times(steps),
        "validation": group.readouts([training.validation_readout]).times(validations * limit),
        "evaluation": _evaluation(settings, group),
    }
    return {name: group.hours(work) for name, work in parts.items()}


def step_line(settings: Settings, machine: MachineSettings) -> str | None:
    """Return what one step of training takes of one device, in words; None for a model of unknown size."""
    limit, took = settings.rollout.max_new_tokens, list[float]()
    for tokens in (float(ANSWER_TOKENS), math.inf):
        hours = estimate_run(settings, machine, answer_tokens=tokens)
        if hours is None:
            return None
        took.append(3600 * hours["training"] / training_steps(settings))
    line = (
        f"time       about {_seconds(took[0])} s of one {machine.name} a step, estimated at "
        f"{machine.efficiency:.0%} of its peaks, with answers of {min(limit, ANSWER_TOKENS)} tokens"
    )
    longer = f"; {_seconds(took[1])} s where all are as long as allowed ({limit})"
    return line + (longer if limit > ANSWER_TOKENS else "")


def _seconds(number: float) -> str:
    """Two digits, but never a power of ten in their place."""
    return f"{number:.2g}" if number < 99.5 else f"{number:.0f}"


def _evaluation(settings: Settings, group: _Group) -> Work:
    """Return the work of all benchmarks with all read-outs, and of perturbed copies, before and after."""
    images = copies = 0
    for name, benchmark in settings.benchmark.items():
        size = num_images(settings.dataset[name], benchmark.split)
        shown = min(size, benchmark.limit or size)
        images += shown
        copies += settings.perturbation.num_copies * min(shown, settings.perturbation.images)
    readouts = settings.evaluation.readouts
    headline = group.readouts([readouts[settings.evaluation.headline]])
    return group.readouts(list(readouts.values())).times(2 * images) + headline.times(2 * copies)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The cost of one prompt with its completions, at this run's lengths."""

    shape: Shape
    settings: Settings
    machine: MachineSettings
    answer_tokens: float

    @property
    def patches(self) -> float:
        return picture_patches(self.shape, self.settings)

    @property
    def prompt(self) -> float:
        return prompt_tokens(self.shape, self.settings)

    def score_flop(self, group: int) -> float:
        """Return one packed forward: picture and prompt once, all completions, the head at their tokens."""
        shape, tokens = self.shape, min(self.settings.rollout.max_new_tokens, self.answer_tokens)
        prompt = vision_flop(shape, self.patches) + prefix_flop(shape, self.prompt)
        answers = completions_flop(shape, self.prompt, group, tokens) + head_flop(shape, group, tokens)
        return prompt + answers

    def rollout(self, answers: Mapping[int, int]) -> Work:
        """Return the work of one prompt with so many answers by their limit, decoded beside other prompts.

        The prompt is encoded once; answers of one limit decode together.
        """
        together = max(1.0, self.settings.rollout.decode_batch / sum(answers.values()))
        decode_s = 0.0
        for max_new_tokens, group in answers.items():
            tokens = min(max_new_tokens, self.answer_tokens)
            step = decode_step_s(
                self.shape, self.machine, prompts=together, prompt=self.prompt, group=group, done=tokens / 2
            )
            decode_s += step * tokens / together
        prefill = vision_flop(self.shape, self.patches) + prefix_flop(self.shape, self.prompt)
        return Work(flop=prefill, decode_s=decode_s)

    def readouts(self, readouts: Sequence[Readout]) -> Work:
        """Return the work of one picture in one pass: read-outs that draw alike share their answers."""
        answers: dict[int, int] = {}
        for draw in dict.fromkeys(readout.draw for readout in readouts):
            answers[draw.max_new_tokens] = answers.get(draw.max_new_tokens, 0) + draw.num_samples
        expected = [self.expected_flop(readout) for readout in readouts if readout.score == "expected"]
        return self.rollout(answers) + Work(flop=sum(expected))

    def expected_flop(self, readout: Readout) -> float:
        """Return one forward of the answers and all scores that could stand there, a token a character."""
        decimals = self.settings.prompt.answer_decimals
        possible = build_task(self.settings.task).possible_scores(decimals=decimals)
        if not possible:
            return 0.0
        nodes = len({text[:length] for text in possible for length in range(1, len(text) + 1)})
        tokens = min(readout.max_new_tokens, self.answer_tokens) + nodes
        answers = completions_flop(self.shape, self.prompt, readout.num_samples, tokens)
        return answers + head_flop(self.shape, readout.num_samples, nodes + 1)

    def update_flop(self) -> float:
        """Return forward and backward (twice the forward) of all branches that the run's terms need."""
        settings = self.settings
        passes = 3.0 + (1.0 if settings.model.gradient_checkpointing else 0.0)
        passes += 1.0 if settings.objective.kl_coef > 0 else 0.0
        degraded = {"none": float(settings.looks_at_twins), "release": 1.0}.get(settings.perception.form, 3.0)
        passes += degraded + (1.0 if settings.model.branch_checkpointing and degraded == 3.0 else 0.0)
        return passes * self.score_flop(settings.rollout.group_size)

    def hours(self, work: Work) -> float:
        arithmetic = work.flop / (self.machine.compute_tflop_s * 1e12)
        return (arithmetic + work.decode_s) / self.machine.efficiency / 3600


def training_steps(settings: Settings) -> int:
    """Return the training steps: as given, or epochs over the known or assumed number of images."""
    duration = settings.training.duration
    if duration.steps is not None:
        return duration.steps
    assert duration.epochs is not None
    sizes = [num_images(settings.dataset[name], settings.loading.split) for name in settings.data]
    images = sum(min(size, settings.loading.limit or size) for size in sizes)
    return max(1, round(duration.epochs * images / settings.training.prompts_per_step))


def num_images(entry: DatasetSettings, split: str) -> int:
    """Return the images of a part of a set, known under its protocol or assumed."""
    parts = entry.expected.of_protocol(entry.protocol) if entry.expected is not None else None
    return (parts or {}).get(split, UNKNOWN_IMAGES)
