"""Overrides as text: expansion of several values, and what cannot be read."""

from __future__ import annotations

import pytest

from qhk.config.catalogue import Catalogue
from qhk.config.overrides import expand, parse_override, refuse_repeated


def test_expand_is_the_full_product_in_order(catalogue: Catalogue) -> None:
    jobs = expand(["seed=0,1", "study=x", "uncertainty=none,rank"], catalogue)
    assert jobs == [
        ["seed=0", "study=x", "uncertainty=none"],
        ["seed=0", "study=x", "uncertainty=rank"],
        ["seed=1", "study=x", "uncertainty=none"],
        ["seed=1", "study=x", "uncertainty=rank"],
    ]


def test_expand_of_nothing_swept_is_one_job(catalogue: Catalogue) -> None:
    assert expand(["seed=3"], catalogue) == [["seed=3"]]
    assert expand([], catalogue) == [[]]


def test_expand_reads_ranges_and_patterns(catalogue: Catalogue) -> None:
    assert expand(["seed=range(0,3)"], catalogue) == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert expand(["optimizer=glob(*)"], catalogue) == [
        ["optimizer=adamw"],
        ["optimizer=adamw_8bit"],
        ["optimizer=adamw_stochastic"],
    ]


def test_endless_interval_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(ValueError, match="list the values"):
        expand(["seed=interval(0,1)"], catalogue)


@pytest.mark.parametrize("text", ["a=[1", "a='x", "=1", "a=b=c", "a=(1)"])
def test_unreadable_override_is_one_line(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_override(text)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_the_same_value_twice_and_a_term_built_anew_are_no_choice_of_two() -> None:
    refuse_repeated(["objective=grpo", "optimizer.lr=1e-3", "objective=grpo", "optimizer.lr=0.001"])
    refuse_repeated(["~reward.terms.accuracy", "+reward.terms.accuracy={weight: 1}"])
    refuse_repeated(
        ["loading@mixture.a.loading=small", "loading@mixture.b.loading=default", "loading=default"]
    )


@pytest.mark.parametrize(
    "words",
    [
        ["objective=cispo", "objective=gdpo"],
        ["+a.b=1", "a.b=2"],
        ["a=true", "a=1.5"],
        ["a=null", "~a"],
        ["~a", "+a=1", "a=2"],
        ["loading@mixture.a.loading=small", "loading@mixture.a.loading=default"],
    ],
)
def test_a_choice_that_a_later_one_would_silence_is_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"stands beside it; keep one of them") as caught:
        refuse_repeated(words)
    assert str(caught.value).startswith(f"{words[-1]}: {words[-2]} ")
