"""A composer sets trailing values itself: the config is the one that Hydra composes as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from qhk.config import composer
from qhk.config.catalogue import Catalogue
from qhk.config.compose import compose_config, plain_config
from qhk.config.composer import TrainingComposer

WORDS = (
    ["uncertainty=none", "optimizer.lr=1e-4", "study=a"],
    ["optimizer.lr=1e-4", "uncertainty=none", "optimizer.betas=[0.8,0.9]", "rollout.group_size=4"],
    ["+reward.terms.mine={_target_: m.f, weight: 1.0}", "reward.terms.mine.weight=2.0", "checkpoint=null"],
    ["hydra/launcher=slurm", "hydra.launcher.nodes=2", "paths.outputs=/a b"],
    ["loading.limit=4", "~reward.terms.format", "name='x, y'"],
)


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0])
def test_the_config_is_hydras(words: Sequence[str], catalogue: Catalogue) -> None:
    found = TrainingComposer(catalogue).config(words)
    assert plain_config(found) == plain_config(compose_config("train", words, catalogue))


def test_values_are_set_without_composing_again(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[Sequence[str]] = []

    def compose(command: str, overrides: Sequence[str], catalogue: Catalogue) -> object:
        composed.append(overrides)
        return compose_config(command, overrides, catalogue)

    monkeypatch.setattr(composer, "compose_config", compose)
    one = TrainingComposer(catalogue)
    first, second = (one.settings([f"optimizer.lr={lr}", "name=x"], [0, 1]) for lr in ("1e-4", "2e-4"))
    assert composed == [()]
    assert [(run.seed, run.optimizer.lr) for run in (*first, *second)] == [
        (0, 1e-4),
        (1, 1e-4),
        (0, 2e-4),
        (1, 2e-4),
    ]
    with pytest.raises(ValueError, match=r"optimizer\.lr: must be greater than 0"):
        one.settings(["optimizer.lr=-1"], [0])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["optimizer.lrr=1"], "did you mean optimizer.lr"),
        (["optimizer.lr=1,2"], "optimizer.lr=1,2: several values"),
    ],
)
def test_a_mistake_is_explained(words: Sequence[str], line: str, catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match=line):
        TrainingComposer(catalogue).config(words)
