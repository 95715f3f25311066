from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.rewards.answer import parse_answer
from qhk.types import Completion, Example


@pytest.fixture
def make_completion() -> Callable[..., Completion]:
    """A completion of a text, read by a rule."""

    def make(text: str, rule: str = "strict") -> Completion:
        return Completion(
            text=text,
            answer=parse_answer(text, form="score", rule=rule),
            num_tokens=len(text),
            truncated=False,
        )

    return make


@pytest.fixture
def make_example() -> Callable[[float], Example]:
    """An example with a given opinion; nothing else of it matters to a reward."""

    def make(mos: float) -> Example:
        return Example(
            id="one", dataset="none", image=Path("one.png"), mos=mos, mos_native=mos, higher_is_better=True
        )

    return make
