"""Reward terms that let a test get between the steps of a run, or break it on purpose."""

from __future__ import annotations

import time
from pathlib import Path

from qhk.types import Completion, Example


def slow(completion: Completion, example: Example, *, seconds: float) -> float:
    """0 after a while."""
    time.sleep(seconds)
    return 0.0


def fails_while(completion: Completion, example: Example, *, flag: str) -> float:
    """0, but an error as long as the file ``flag`` is there."""
    if Path(flag).exists():
        raise RuntimeError("broken by design")
    return 0.0
