from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from qhk.rewards.compose import build_terms
from qhk.rewards.term import RewardTerm
from qhk.types import Completion, Example
from tests.tasks.builders import parse_answer

REWARDS = Path(__file__).parents[2] / "conf" / "reward"


@pytest.fixture
def make_completion() -> Callable[..., Completion]:
    """A completion of a text, read by a rule of a form."""

    def make(text: str, rule: str = "strict", form: str = "score") -> Completion:
        return Completion(
            text=text,
            answer=parse_answer(text, form=form, rule=rule),
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


@pytest.fixture
def load_terms() -> Callable[[str], list[RewardTerm]]:
    """The terms of an option of the reward group, built as a run builds them."""

    def load(name: str) -> list[RewardTerm]:
        run = {"task": {"low": 1.0, "high": 5.0}, "rollout": {"max_new_tokens": 200}}
        run["strengths"] = {"reward_tau": 0.3, "reward_format": 0.8}
        node = OmegaConf.merge(run, {"reward": _with_defaults(name)})
        reward: Any = OmegaConf.to_container(node, resolve=True)
        return build_terms(reward["reward"]["terms"])

    return load


def _with_defaults(name: str) -> DictConfig:
    """An option over those that its own defaults list names."""
    loaded = OmegaConf.load(REWARDS / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    names = loaded.pop("defaults", [])
    merged = OmegaConf.merge(*[_with_defaults(base) for base in names if base != "_self_"], loaded)
    assert isinstance(merged, DictConfig)
    return merged
