"""Reward terms that let a test get between the steps of a run, or break it on purpose."""

from __future__ import annotations

import os
import time
from pathlib import Path

from qhk.types import Completion, Example

calls: list[str] = []
"""The examples whose completions this process has rewarded."""


def held(completion: Completion, example: Example, *, gate: str, free: int) -> float:
    """0; but once ``free`` completions have passed, only when the folder ``gate`` holds a file "all", or one
    named after this process, which says by a file of its own that it waits. What happens to the run until
    then happens in the same step always.
    """
    calls.append(example.id)
    mine = Path(gate, str(os.getpid()))
    while len(calls) > free and not (mine.exists() or Path(gate, "all").exists()):
        mine.with_suffix(".waits").touch()
        time.sleep(0.02)
    return 0.0


tries: list[str] = []
"""The examples for which ``fails_while`` was asked in this process."""


def fails_while(completion: Completion, example: Example, *, flag: str) -> float:
    """0, but an error as long as the file ``flag`` is there; not while a run is loaded, which tries it."""
    tries.append(example.id)
    if len(tries) > 4 and Path(flag).exists():
        raise RuntimeError("broken by design")
    return 0.0
