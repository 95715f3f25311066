"""What all ways of a step share: the model, its pictures, how time, memory and work are counted."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from qhk.policy.load import Policy, prepare_model
from qhk.policy.shape import Shape
from qhk.policy.tiny import build_tiny, tiny_config, tiny_image_processor
from qhk.policy.tokenizer import build_tokenizer
from qhk.sweep.cost import completions_flop, head_flop, prefix_flop, vision_flop

SIDES = {300: 448, 1200: 960}
"""Prompt tokens, about, and the side in pixels of the picture that gives them."""

QUESTION = "Rate the quality. " * 3
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
KL_COEF, LEARNING_RATE = 0.04, 1e-6
SHAPE = Shape(
    hidden=256,
    layers=4,
    mlp=768,
    kv_width=64,
    vocabulary=2048,
    tied=True,
    vision_hidden=128,
    vision_layers=4,
    vision_mlp=256,
    full=1,
    patch=14,
    merge=2,
)
"""About five million parameters."""


@dataclass(frozen=True)
class Cell:
    """One line of the table: prompt tokens, about, completion tokens, completions per prompt."""

    prompt: int
    completion: int
    group: int


class Endless(Policy):
    """A policy whose completions end at their limit alone, so that all ways decode as many tokens."""

    @property
    def end_tokens(self) -> tuple[int, ...]:
        return ()


def bench_policy() -> Policy:
    """Return a random model: grouped-query heads, one of four vision blocks full, the others windowed."""
    tokenizer = build_tokenizer(["Rate the quality."], num_merged_tokens=10)
    config: Any = tiny_config(
        tokenizer,
        patch_size=SHAPE.patch,
        merge_size=SHAPE.merge,
        vision_depth=SHAPE.vision_layers,
        vision_hidden=SHAPE.vision_hidden,
        vision_mlp=SHAPE.vision_mlp,
        vision_heads=4,
        depth=SHAPE.layers,
        hidden=SHAPE.hidden,
        mlp=SHAPE.mlp,
        heads=8,
        kv_heads=2,
        initializer_range=0.02,
    )
    config.text_config.vocab_size = SHAPE.vocabulary
    config.vision_config.fullatt_block_indexes = [SHAPE.vision_layers - 1]
    config.vision_config.window_size = 112
    processor = tiny_image_processor(
        patch_size=SHAPE.patch, merge_size=SHAPE.merge, min_pixels=28 * 28, max_pixels=2000 * 2000
    )
    model = prepare_model(build_tiny(config, seed=0)).eval()
    return Endless(model=model, tokenizer=tokenizer, image_processor=processor)


def write_picture(folder: Path, side: int, number: int) -> Path:
    """Return a file that holds a smooth picture, another for each number."""
    waves = np.sin(np.linspace(0, 5 + number, side))[:, None] * np.cos(np.linspace(0, 9, side))
    path = folder / f"{number}.png"
    Image.fromarray(np.uint8(127 + 120 * waves)).convert("RGB").save(path)
    return path


@dataclass
class Clock:
    """CPU seconds of this process by part; what runs within another part counts there and not outside."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    inside: list[str] = field(default_factory=lambda: ["rest"])
    since: float = field(default_factory=time.process_time)

    def _count(self) -> None:
        now = time.process_time()
        self.seconds[self.inside[-1]] += now - self.since
        self.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._count()
        self.inside.append(name)
        try:
            yield
        finally:
            self._count()
            self.inside.pop()

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Let the owner's function count as that part."""
        function: Callable[..., Any] = getattr(owner, attribute)

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, counted)

    def take(self) -> dict[str, float]:
        """Return the seconds since the last call."""
        self._count()
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds


class Memory:
    """The largest memory of this process since this was made, above what it held then."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        self._before = self._status("VmRSS")

    def peak_mib(self) -> float:
        return (self._status("VmHWM") - self._before) / 1024

    def _status(self, name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1])


def matmul_rate() -> float:
    """Return what this machine's one thread multiplies, in FLOP/s of float32: the best of a few products."""
    first, second = torch.randn(2, 1024, 1024).unbind()
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        torch.mm(first, second)
        best = min(best, time.process_time() - started)
    return 2 * 1024**3 / best


def step_flops(cell: Cell, *, prompt: int, patches: int, degraded: bool) -> float:
    """Return the multiplications and additions that a step cannot do without, whatever the way.

    The vision tower and the language model each see the picture and the prompt once, and every completion
    token once, in each of: the rollout, the reference, and the policy, whose backward pass takes twice its
    forward; a degraded branch with gradient takes the policy's share again.
    """
    group, tokens = cell.group, cell.completion
    once = vision_flop(SHAPE, patches) + prefix_flop(SHAPE, prompt)
    once += completions_flop(SHAPE, prompt, group, tokens) + head_flop(SHAPE, group, tokens)
    return once * (8 if degraded else 5)
