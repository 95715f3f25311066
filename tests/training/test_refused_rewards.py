"""A reward that does not fit its task is told when a run is loaded, by the key of its stage or part."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qhk.settings.root import Settings
from qhk.training.stages import load_stages
from tests.training.conftest import ListDisplay
from tests.training.test_step import MIXED


def test_stages_are_told_before_the_first_runs(small: Callable[..., Settings]) -> None:
    words = ("stages=exploration_then_stability",)
    with pytest.raises(
        ValueError, match=r"^stages\.exploration: reward\.terms\.balance: does not fit task\.form score"
    ):
        load_stages(small(*words), ListDisplay())
    supervised = small(*words, "training.learner=supervised")
    assert len(load_stages(supervised, ListDisplay())) == 2


def test_a_part_of_a_mixture_is_told_by_its_key(small: Callable[..., Settings]) -> None:
    wrong = ("reward@mixture.degradation.reward=q_hawkeye",)
    with pytest.raises(ValueError, match=r"^mixture\.degradation\.reward\.terms\.accuracy: does not fit"):
        load_stages(small(*MIXED, *wrong), ListDisplay())
