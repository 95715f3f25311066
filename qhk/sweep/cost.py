"""What a run will cost, estimated from its settings: operations and bytes over a machine's peaks.

The formulas are a roofline of the packed step: image and prompt once per group, completions behind them,
the head at completion tokens, decoding bound by the larger of weights-and-keys read and arithmetic. They
leave out reading images, communication and everything that is not a matrix; ``efficiency`` stands for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qhk.settings import Settings
from qhk.settings.sweep import MachineSettings
from qhk.sweep.model_size import BYTES, Shape, model_shape

ANSWER_TOKENS = 200
"""Assumed length of an answer where the limit is longer."""

TEXT_TOKENS = 150
"""Assumed length of the prompt's words."""

PIXELS = 1024 * 768
"""Assumed size of a picture where the limits allow it."""

UNKNOWN_IMAGES = 5000
"""Assumed images of a part that nothing is known of."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Arithmetic in operations, and decoding in device seconds (it may be bound by memory)."""

    flop: float
    decode_s: float

    def __add__(self, other: Work) -> Work:
        return Work(flop=self.flop + other.flop, decode_s=self.decode_s + other.decode_s)

    def times(self, count: float) -> Work:
        return Work(flop=self.flop * count, decode_s=self.decode_s * count)


def vision_flop(shape: Shape, patches: float) -> float:
    """``2 V p + 2 M p / 4 + 4 h p (64 windowed + p full)`` for p patches."""
    attention = 4 * shape.vision_hidden * patches * (64 * shape.windowed + patches * shape.full)
    return 2 * shape.vision * patches + 2 * shape.merger * patches / 4 + attention


def prefix_flop(shape: Shape, prompt: float) -> float:
    """``2 N P + 4 d L P^2 / 2`` for a prompt of P tokens."""
    return 2 * shape.text * prompt + 4 * shape.hidden * shape.layers * prompt**2 / 2


def completions_flop(shape: Shape, prompt: float, group: int, tokens: float) -> float:
    """``2 N G C + 4 d L G (C P + C^2 / 2)`` for G completions of C tokens."""
    attention = 4 * shape.hidden * shape.layers * group * (tokens * prompt + tokens**2 / 2)
    return 2 * shape.text * group * tokens + attention


def head_flop(shape: Shape, group: int, tokens: float) -> float:
    """``2 H G C``: the head at completion tokens alone."""
    return 2 * shape.head * group * tokens


def decode_step_s(
    shape: Shape, machine: MachineSettings, *, prompts: float, prompt: float, group: int, done: float
) -> float:
    """Seconds of one decoding step of ``prompts`` groups together, ``done`` tokens into their answers."""
    read = BYTES * (shape.text + shape.head) + shape.kv_bytes * (prompts * prompt + prompts * group * done)
    flop = 2 * (shape.text + shape.head) * prompts * group
    return max(read / (machine.memory_tb_s * 1e12), flop / (machine.compute_tflop_s * 1e12))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Device hours of one run by part; ``steps`` are training steps. Nothing of it was measured."""

    steps: int
    hours: dict[str, float]

    @property
    def total_h(self) -> float:
        return math.fsum(self.hours.values())


def estimate_run(settings: Settings, machine: MachineSettings) -> Estimate | None:
    """The estimate of one run; None for a model of unknown size."""
    shape = model_shape(settings.model)
    if shape is None:
        return None
    steps = training_steps(settings)
    group = _Group(shape=shape, settings=settings, machine=machine)
    prompts = settings.training.prompts_per_step
    updates = settings.objective.updates_per_rollout
    training = group.rollout(settings.rollout.group_size) + Work(
        flop=group.update_flop() * updates, decode_s=0
    )
    validations = steps // settings.training.validate_every
    limit = settings.loading.validation_limit or 200
    cold = settings.cold_start
    parts = {
        "cold start": Work(flop=3 * group.score_flop(1), decode_s=0).times(cold.steps * cold.batch_size),
        "training": training.times(steps * prompts),
        "validation": group.rollout(settings.training.validation_readout.num_samples).times(
            validations * limit
        ),
        "evaluation": _evaluation(settings, group),
    }
    return Estimate(steps=steps, hours={name: group.hours(work) for name, work in parts.items()})


def _evaluation(settings: Settings, group: _Group) -> Work:
    """All benchmarks with all read-outs, before and after training."""
    images = sum(benchmark_images(settings, name) for name in settings.benchmark)
    whole = Work(flop=0, decode_s=0)
    for readout in settings.evaluation.readouts.values():
        whole += group.rollout(readout.num_samples).times(2 * images)
    return whole


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The cost of one prompt with its completions, at this run's lengths."""

    shape: Shape
    settings: Settings
    machine: MachineSettings

    @property
    def patches(self) -> float:
        return min(self.settings.model.max_pixels, PIXELS) / self.shape.patch**2

    @property
    def prompt(self) -> float:
        return self.patches / 4 + (TEXT_TOKENS if self.settings.model.tiny is None else 40)

    @property
    def tokens(self) -> float:
        return min(self.settings.rollout.max_new_tokens, ANSWER_TOKENS)

    def score_flop(self, group: int) -> float:
        """One packed forward: picture and prompt once, all completions, the head behind them."""
        shape = self.shape
        prompt = vision_flop(shape, self.patches) + prefix_flop(shape, self.prompt)
        answers = completions_flop(shape, self.prompt, group, self.tokens) + head_flop(
            shape, group, self.tokens
        )
        return prompt + answers

    def rollout(self, group: int) -> Work:
        """Reading the prompt once and decoding ``group`` answers, many prompts together."""
        together = max(1.0, self.settings.rollout.decode_batch / group)
        step = decode_step_s(
            self.shape, self.machine, prompts=together, prompt=self.prompt, group=group, done=self.tokens / 2
        )
        prefill = vision_flop(self.shape, self.patches) + prefix_flop(self.shape, self.prompt)
        return Work(flop=prefill, decode_s=step * self.tokens / together)

    def update_flop(self) -> float:
        """Forward and backward (twice the forward) of all branches that the run's terms look at."""
        settings = self.settings
        passes = 3.0 + (1.0 if settings.model.gradient_checkpointing else 0.0)
        passes += 1.0 if settings.objective.kl_coef > 0 else 0.0
        passes += {"none": 0.0, "release": 1.0}.get(settings.perception.form, 3.0)
        return passes * self.score_flop(settings.rollout.group_size)

    def hours(self, work: Work) -> float:
        arithmetic = work.flop / (self.machine.compute_tflop_s * 1e12)
        return (arithmetic + work.decode_s) / self.machine.efficiency / 3600


def training_steps(settings: Settings) -> int:
    """Training steps: as given, or epochs over the number of training images that is known or assumed."""
    duration = settings.training.duration
    if duration.steps is not None:
        return duration.steps
    assert duration.epochs is not None
    images = sum(train_images(settings, name) for name in settings.data)
    return max(1, round(duration.epochs * images / settings.training.prompts_per_step))


def train_images(settings: Settings, name: str) -> int:
    """Training images of a set, known or assumed, at most ``loading.limit``."""
    size = _images(settings, name, settings.loading.split)
    return min(size, settings.loading.limit or size)


def benchmark_images(settings: Settings, name: str) -> int:
    """Images of a benchmark, known or assumed, at most its ``limit``."""
    benchmark = settings.benchmark[name]
    size = _images(settings, name, benchmark.split)
    return min(size, benchmark.limit or size)


def _images(settings: Settings, name: str, split: str) -> int:
    entry = settings.dataset[name]
    parts = entry.expected.of_protocol(entry.protocol) if entry.expected is not None else None
    return (parts or {}).get(split, UNKNOWN_IMAGES)
