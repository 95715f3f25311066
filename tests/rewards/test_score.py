from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.score import bell_error, exponential_error, gaussian_error, threshold_error
from qhk.types import Answer, Completion, Example

Make = Callable[..., Completion]
MakeExample = Callable[[float], Example]
SCALE = {"low": 1.0, "high": 5.0}
SCORES = st.floats(-10, 20)


def completion(score: float | None) -> Completion:
    return Completion(text="", answer=Answer(score=score), num_tokens=1, truncated=False)


def test_published_vectors(make_example: MakeExample) -> None:
    example = make_example(3.75)
    settings = {**SCALE, "tau": 0.30, "out_of_range": "clip"}
    assert exponential_error(completion(3.5), example, **settings) == pytest.approx(0.4346, abs=5e-5)
    assert exponential_error(completion(7.9), example, **settings) == pytest.approx(0.0155, abs=5e-5)
    assert exponential_error(completion(None), example, **settings) == 0.0


@pytest.mark.parametrize(
    ("error", "reward"),
    [(0, 1), (0.05, 0.8465), (0.1, 0.7165), (0.2, 0.5134), (0.3, 0.3679), (0.5, 0.1889), (1, 0.0357)],
)
def test_published_errors(make_example: MakeExample, error: float, reward: float) -> None:
    got = exponential_error(
        completion(3 + error), make_example(3.0), **SCALE, tau=0.30, out_of_range="refuse"
    )
    assert got == pytest.approx(reward, abs=5e-5)


def test_scores_outside_the_scale(make_example: MakeExample) -> None:
    example = make_example(4.8)
    got = {
        how: exponential_error(completion(5.3), example, **SCALE, tau=0.5, out_of_range=how)
        for how in ("clip", "refuse", "keep")
    }
    assert got == pytest.approx({"clip": math.exp(-0.4), "refuse": 0.0, "keep": math.exp(-1.0)})
    edge = exponential_error(completion(5.0), make_example(5.0), **SCALE, tau=0.5, out_of_range="refuse")
    assert edge == 1.0


@pytest.mark.parametrize("score", [3.0, None])
def test_an_example_without_a_score_is_an_error_whatever_was_answered(
    make_example: MakeExample, score: float | None
) -> None:
    example = replace(make_example(3.0), mos=None, mos_native=None)
    with pytest.raises(ValueError, match="one of none has no score"):
        exponential_error(completion(score), example, **SCALE, tau=0.5, out_of_range="refuse")
    with pytest.raises(ValueError, match="one of none has no score"):
        threshold_error(completion(score), example, **SCALE, threshold=0.35, out_of_range="refuse")


def test_clip_brings_the_opinion_into_the_scale_too(make_example: MakeExample) -> None:
    example = make_example(5.4)
    assert exponential_error(completion(6.0), example, **SCALE, tau=0.5, out_of_range="clip") == 1.0
    assert threshold_error(completion(6.0), example, **SCALE, threshold=0.35, out_of_range="clip") == 1.0


@pytest.mark.parametrize(
    ("score", "how", "reward"),
    [
        (3.25, "keep", 1.0),
        (3.5, "keep", 0.0),  # the threshold itself does not count
        (2.75, "keep", 1.0),
        (2.5, "keep", 0.0),
        (None, "keep", 0.0),
    ],
)
def test_threshold_is_strict(make_example: MakeExample, score: float | None, how: str, reward: float) -> None:
    assert (
        threshold_error(completion(score), make_example(3.0), **SCALE, threshold=0.5, out_of_range=how)
        == reward
    )


def test_threshold_outside_the_scale(make_example: MakeExample) -> None:
    example = make_example(4.9)
    got = [
        threshold_error(completion(5.2), example, **SCALE, threshold=0.35, out_of_range=how)
        for how in ("clip", "refuse", "keep")
    ]
    assert got == [1.0, 0.0, 1.0]


@given(SCORES, SCORES, st.floats(1, 5), st.floats(0.05, 3), st.sampled_from(["clip", "refuse", "keep"]))
def test_bounded_and_monotone_in_the_error(
    first: float, second: float, mos: float, tau: float, how: str
) -> None:
    example = Example(id="", dataset="", image=None, mos=mos, mos_native=mos, higher_is_better=True)  # type: ignore[arg-type]
    near, far = sorted((first, second), key=lambda score: abs(score - mos))
    for reward in (
        [exponential_error(completion(s), example, **SCALE, tau=tau, out_of_range=how) for s in (near, far)],
        [
            threshold_error(completion(s), example, **SCALE, threshold=tau, out_of_range=how)
            for s in (near, far)
        ],
    ):
        assert all(0.0 <= value <= 1.0 for value in reward)
        if how == "keep" or (1 <= near <= 5 and 1 <= far <= 5):
            assert reward[0] >= reward[1]


@given(st.one_of(st.none(), SCORES), st.floats(1, 5), st.floats(0.05, 3), st.floats(0.3, 4))
def test_gaussian_and_bell_against_their_formulas(
    score: float | None, mos: float, width: float, slope: float
) -> None:
    example = Example(
        id="one", dataset="none", image=Path("one.png"), mos=mos, mos_native=mos, higher_is_better=True
    )
    gauss = gaussian_error(completion(score), example, **SCALE, sigma=width, out_of_range="keep")
    bell = bell_error(completion(score), example, **SCALE, width=width, slope=slope, out_of_range="keep")
    error = math.inf if score is None else abs(score - mos)
    assert gauss == pytest.approx(math.exp(-(error**2) / (2 * width**2)), abs=1e-12)
    assert bell == pytest.approx(
        0.0 if score is None else 1 / (1 + (error / width) ** (2 * slope)), abs=1e-12
    )


def test_gaussian_and_bell_at_their_widths(make_example: MakeExample) -> None:
    example, common = make_example(3.0), {**SCALE, "out_of_range": "refuse"}
    assert gaussian_error(completion(3.5), example, sigma=0.5, **common) == pytest.approx(math.exp(-0.5))
    assert bell_error(completion(3.5), example, width=0.5, slope=7.0, **common) == 0.5
    assert bell_error(completion(3.0), example, width=0.5, slope=7.0, **common) == 1.0
    assert bell_error(completion(5.0), example, width=1e-3, slope=1e3, **common) == 0.0  # beyond a float
    for outside in (5.01, None):
        assert gaussian_error(completion(outside), make_example(5.0), sigma=0.5, **common) == 0.0
        assert bell_error(completion(outside), make_example(5.0), width=0.5, slope=1.0, **common) == 0.0
