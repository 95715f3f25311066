"""Options are composed once: values that are set on a copy give the config that Hydra composes as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from omegaconf import DictConfig

from qhk.config import compose
from qhk.config.catalogue import Catalogue
from qhk.config.compose import compose_config, plain_config
from qhk.config.training import training_settings

WORDS = (
    ["uncertainty=none", "optimizer.lr=1e-4", "study=a"],
    ["optimizer.lr=1e-4", "uncertainty=none", "optimizer.betas=[0.8,0.9]", "rollout.group_size=4"],
    ["+reward.terms.mine={_target_: m.f, weight: 1.0}", "reward.terms.mine.weight=2.0", "checkpoint=null"],
    ["hydra/launcher=slurm", "hydra.launcher.nodes=2", "paths.outputs=/a b"],
    ["loading.limit=4", "~reward.terms.format", "name='x, y'"],
    [
        "reward.terms.accuracy.weight=0.5",
        "experiment=q_insight",
        "data={koniq:1,spaq:2}",
        "+reward/terms=rank",
    ],
)


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return the options and values that Hydra composes from now on, a list for each time."""
    found: list[tuple[str, ...]] = []
    whole = compose._compose

    def noted(command: str, overrides: Sequence[str], catalogue: Catalogue, **how: Any) -> DictConfig:
        found.append(tuple(overrides))
        return whole(command, overrides, catalogue, **how)

    monkeypatch.setattr(compose, "_compose", noted)
    return found


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0])
def test_the_config_is_hydras(words: Sequence[str], catalogue: Catalogue) -> None:
    whole = compose._compose("train", words, catalogue, with_hydra=False)
    for _ in range(2):
        assert plain_config(compose_config("train", words, catalogue)) == plain_config(whole)


def test_values_are_set_without_composing_again(
    catalogue: Catalogue, composed: list[tuple[str, ...]]
) -> None:
    own = replace(catalogue)
    first, second = (
        training_settings([f"optimizer.lr={lr}", "name=x"], [0, 1], own) for lr in ("1e-4", "2e-4")
    )
    assert composed == [()]
    assert [(run.seed, run.optimizer.lr) for run in (*first, *second)] == [
        (0, 1e-4),
        (1, 1e-4),
        (0, 2e-4),
        (1, 2e-4),
    ]
    with pytest.raises(ValueError, match=r"optimizer\.lr: must be greater than 0"):
        training_settings(["optimizer.lr=-1"], [0], own)


def test_the_options_asked_for_last_are_kept(
    catalogue: Catalogue, composed: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(catalogue)
    monkeypatch.setattr(compose, "KEPT", 2)
    for option in ("none", "linear", "none", "inverse", "none", "linear"):
        compose_config("train", [f"uncertainty={option}"], own)
    assert composed == [(f"uncertainty={option}",) for option in ("none", "linear", "inverse", "linear")]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["optimizer.lrr=1"], "did you mean optimizer.lr"),
        (["optimizer.lr=1,2"], "optimizer.lr=1,2: several values"),
    ],
)
def test_a_mistake_is_explained(words: Sequence[str], line: str, catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match=line):
        compose_config("train", words, catalogue)
