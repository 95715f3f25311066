from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.length import length_band, soft_overlong
from qhk.types import Answer, Completion, Example
from tests.data.test_twin import example


def penalty(num_tokens: int, *, cut: bool = False, limit: int = 20480, buffer: float = 0.2) -> float:
    completion = Completion(text="", answer=Answer(score=None), num_tokens=num_tokens, truncated=cut)
    picture: Example = example("a.png")
    return soft_overlong(completion, picture, max_tokens=limit, buffer_fraction=buffer)


def test_published_lengths() -> None:
    """DAPO expects 16384 tokens and punishes up to 20480."""
    assert [penalty(n) for n in (0, 16384, 17408, 18432, 20480, 30000)] == [0, 0, -0.25, -0.5, -1, -1]


def test_a_completion_that_was_cut_is_punished_in_full() -> None:
    assert penalty(14, cut=True, limit=14) == -1.0
    assert penalty(3, cut=True) == -1.0


@given(st.integers(1, 500), st.floats(0.01, 1.0), st.integers(0, 600))
def test_bounds_and_monotone(limit: int, buffer: float, num_tokens: int) -> None:
    shorter, longer = (penalty(n, limit=limit, buffer=buffer) for n in (num_tokens, num_tokens + 1))
    assert -1.0 <= longer <= shorter <= 0.0


@pytest.mark.parametrize("wrong", [0.0, -0.5])
def test_the_buffer_is_checked_with_the_settings(wrong: float) -> None:
    from qhk.rewards.compose import build_terms

    spec = {"_target_": "qhk.rewards.length.soft_overlong", "weight": 1.0, "max_tokens": 9}
    with pytest.raises(ValueError, match=r"reward\.terms\.overlong\.buffer_fraction"):
        build_terms({"overlong": {**spec, "buffer_fraction": wrong}})


@pytest.mark.parametrize(
    ("num_tokens", "earned"), [(0, 0), (10, 0.5), (15, 0.75), (20, 1), (50, 1), (55, 0.75), (70, 0), (99, 0)]
)
def test_a_band_of_lengths(num_tokens: int, earned: float) -> None:
    for cut in (False, True):
        completion = Completion(text="", answer=Answer(score=None), num_tokens=num_tokens, truncated=cut)
        found = length_band(completion, example("a.png"), shortest=20, longest=50, slope=20.0)
        assert found == (0.0 if cut else earned)
