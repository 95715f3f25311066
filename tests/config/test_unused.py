"""A word about a node that every stage has for itself is told where to go, and works there."""

from __future__ import annotations

import re

import pytest

from qhk.cli.job import prepare
from qhk.config.catalogue import Catalogue
from qhk.sweep.plan import plan_sweep

EXPERIMENT = ("experiment=preresq_r1_iqa", "scale=miniature")


@pytest.mark.parametrize(
    ("word", "fixed"),
    [
        ("reward=q_hawkeye", "reward@stages.{}.reward=q_hawkeye"),
        ("~reward.terms.balance", "~stages.{}.reward.terms.balance"),
        ("reward.terms.pairwise.weight=5", "stages.{}.reward.terms.pairwise.weight=5"),
        ("+reward.terms.format.extra=1", "+stages.{}.reward.terms.format.extra=1"),
    ],
)
def test_a_reward_beside_the_stages_own_is_refused(word: str, fixed: str, catalogue: Catalogue) -> None:
    fixes = [fixed.format(stage) for stage in ("exploration", "stability")]
    line = f"{word}: every stage has its own reward; write {' '.join(fixes)}, or add stages=none"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        prepare("train", [*EXPERIMENT, word], catalogue)


def test_the_told_words_work(catalogue: Catalogue) -> None:
    before = prepare("train", EXPERIMENT, catalogue).settings
    weights = [f"stages.{name}.reward.terms.pairwise.weight=5" for name in before.stages]
    weighted = prepare("train", [*EXPERIMENT, *weights], catalogue).settings
    own = [stage.reward for stage in weighted.stages.values()]
    assert [reward.terms["pairwise"].weight for reward in own if reward] == [5.0, 5.0]
    chosen = [f"reward@stages.{name}.reward=q_hawkeye" for name in before.stages]
    hawkeye = prepare("train", [*EXPERIMENT, *chosen], catalogue).settings
    assert [set(stage.reward.terms) for stage in hawkeye.stages.values() if stage.reward] == [
        {"accuracy", "format"}
    ] * 2
    deleted = prepare(
        "train",
        [*EXPERIMENT, *(f"~stages.{name}.reward.terms.pairwise" for name in before.stages)],
        catalogue,
    ).settings
    assert all("pairwise" not in stage.reward.terms for stage in deleted.stages.values() if stage.reward)
    alone = prepare("train", [*EXPERIMENT, "stages=none", "reward=q_hawkeye"], catalogue).settings
    assert set(alone.reward.terms) == {"accuracy", "format"}


def test_a_node_that_some_stage_lacks_or_another_key_reads_is_let_through(catalogue: Catalogue) -> None:
    words = ["stages=scores_then_comparisons", "scale=miniature", "reward=q_hawkeye"]
    assert set(prepare("train", words, catalogue).settings.reward.terms) == {"accuracy", "format"}
    rollouts = [f"+stages.{name}.rollout=${{rollout}}" for name in ("exploration", "stability")]
    stages = prepare("train", [*EXPERIMENT, *rollouts, "rollout.group_size=3"], catalogue).settings.stages
    assert [stage.rollout.group_size for stage in stages.values() if stage.rollout] == [3, 3]


def test_cells_of_a_sweep_are_refused_alike(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match=r"reward=q_hawkeye: every stage has its own reward"):
        plan_sweep(["sweep=reward", *EXPERIMENT], catalogue)


def test_a_strength_that_some_cell_of_a_sweep_uses_is_let_through(catalogue: Catalogue) -> None:
    words = ["sweep=modules", "strengths.perception_gamma=1e-3"]
    gammas = {run.cell: run.settings.perception.gamma for run in plan_sweep(words, catalogue).runs}
    assert (gammas["full"], gammas["without_perception"]) == (1e-3, 0.0)
    with pytest.raises(ValueError, match=r"^strengths\.reward_tau=1: no option in use refers to it"):
        plan_sweep(["sweep=modules", "reward=visualquality_r1", "strengths.reward_tau=1"], catalogue)
    used = ["twin.strengths.noise=1", "strengths.twin={blur:2.0}"]
    assert prepare("train", used, catalogue).settings.twin.strengths["blur"] == 2.0
