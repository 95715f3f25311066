"""A user's reward that ends its run in the way it is told to, at a given call."""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path

import torch

from qhk.types import Completion, Example
from tests.training.conftest import SMALL

PER_STEP = 12
"""Completions of one step: four prompts, three answers each."""

calls: list[str] = []
"""The example of every call; tests clear it."""


def end(completion: Completion, example: Example, *, how: str, at: int) -> float:
    """1, but for the call number ``at``; of several processes only the second one ends.

    The first call of a run is made while it is loaded.
    """
    calls.append(example.id)
    if len(calls) != at or os.environ.get("RANK") == "0":
        return 1.0
    if how.startswith("SIG"):
        for name in how.split("+"):
            os.kill(os.getpid(), getattr(signal, name))
        return 1.0
    match how:
        case "raise":
            return float({"scale": 5}["length"])
        case "not finite":
            return math.nan
        case "fill":
            with open("outputs/ballast", "wb", buffering=0) as ballast:
                while ballast.write(bytes(4096)) == 4096:
                    pass
        case "exit":
            sys.exit(0)
        case "accelerator memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has")
        case "memory":
            torch.empty(2**60)
    raise AssertionError(how)


def ending_words(how: str, *, at: int, cache: Path) -> list[str]:
    """The words of a bare run, without cold start and benchmarks, that this reward ends.

    ``at`` counts the completions of its steps.
    """
    bare = [word for word in SMALL if not word.startswith(("cold_start", "benchmark"))]
    bare += ["cold_start=none", "cold_start.steps=0", "benchmark=[]", f"paths.cache={cache}", "name=run"]
    target = f"_target_: tests.training.ending_reward.end, weight: 1.0, how: {how}, at: {at + 1}"
    return [*bare, f"+reward.terms.mine={{{target}}}"]
