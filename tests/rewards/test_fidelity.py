"""Thurstone fidelity: the published table, a second implementation, its invariances and its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from qhk.rewards.batch import ScoredGroup
from qhk.rewards.fidelity import thurstone_fidelity
from qhk.tasks.aspects import average

PAPER: dict[str, Any] = {
    "epsilon": 1e-6,
    "variance": "estimated",
    "form": "continuous",
    "opponent": "mean",
    "alone": 0.7,
}
LOWEST, HIGHEST = 2 * math.sqrt(1e-6), math.sqrt(1 + 1e-6) + math.sqrt(1e-6)


def group(mos: float, *scores: float | None, dataset: str = "one") -> ScoredGroup:
    return ScoredGroup(id=f"{mos}", dataset=dataset, mos=mos, scores=scores)


def fidelity(groups: Sequence[ScoredGroup], **changed: Any) -> list[list[float]]:
    return thurstone_fidelity(groups, **PAPER | changed)


def twin(groups: Sequence[ScoredGroup], **changed: Any) -> list[list[float]]:
    """The definition, once more and pair by pair, with numpy and scipy."""
    how = PAPER | changed
    table = []
    for i, own in enumerate(groups):
        row = []
        for score in own.scores:
            met = []
            for z, other in enumerate(groups):
                theirs = np.array([s for s in other.scores if s is not None])
                if z == i or other.dataset != own.dataset or not len(theirs) or score is None:
                    continue
                mine = np.array([s for s in own.scores if s is not None])
                spread = [s.var(ddof=1) if len(s) > 1 else 0.0 for s in (mine, theirs)]
                total = 2.0 if how["variance"] == "unit" else sum(spread)
                against = [theirs.mean()] if how["opponent"] == "mean" else theirs
                p = np.mean(norm.cdf((score - np.array(against)) / np.sqrt(total + how["epsilon"])))
                t = 0.5 if own.mos == other.mos else float(own.mos > other.mos)
                if how.get("truth") == "votes":
                    wins = np.sign(mine[:, None] - theirs[None, :]).sum()
                    t = (1 + np.sign(wins)) / 2
                if how["form"] == "binary":
                    met.append(float((p > 0.5) == (t > 0.5) and (p < 0.5) == (t < 0.5)))
                else:
                    met.append(np.sqrt(p * t + how["epsilon"]) + np.sqrt((1 - p) * (1 - t) + how["epsilon"]))
            row.append(0.0 if score is None else float(np.mean(met)) if met else how["alone"])
        table.append(row)
    return table


score = st.one_of(st.none(), st.floats(1, 5).map(lambda value: round(value, 2)))
batches = st.lists(
    st.builds(
        lambda mos, scores, dataset: group(mos, *scores, dataset=dataset),
        st.sampled_from([1.0, 2.0, 2.5, 3.0, 4.25]),
        st.lists(score, min_size=3, max_size=3),
        st.sampled_from(["one", "two"]),
    ),
    min_size=1,
    max_size=6,
)


def test_published_table() -> None:
    groups = [group(3.0, 3.0, 3.2, 3.4), group(2.2, 2.0, 2.5, 2.1), group(3.0, 4.0, 3.1, 3.6)]
    expected = [
        [0.954336, 0.979753, 0.995991],
        [1.000622, 0.991437, 1.000258],
        [0.925544, 0.988113, 0.975597],
    ]
    np.testing.assert_allclose(fidelity(groups), expected, atol=1e-5)


@pytest.mark.parametrize("variance", ["estimated", "unit"])
@pytest.mark.parametrize("form", ["continuous", "binary"])
@pytest.mark.parametrize("opponent", ["mean", "responses"])
@settings(max_examples=25, deadline=None)
@given(groups=batches)
def test_every_choice_is_what_its_definition_says(
    variance: str, form: str, opponent: str, groups: list[ScoredGroup]
) -> None:
    how = {"variance": variance, "form": form, "opponent": opponent}
    # Where p is one half but for rounding, the binary form may fall to either side.
    if form == "binary":
        groups = [
            group(g.mos, *[s and s + i / 997 for s in g.scores], dataset=g.dataset)
            for i, g in enumerate(groups)
        ]
    np.testing.assert_allclose(np.array(fidelity(groups, **how)), np.array(twin(groups, **how)), atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(groups=batches, data=st.data())
def test_order_of_images_and_completions_never_matters(
    groups: list[ScoredGroup], data: st.DataObject
) -> None:
    images = data.draw(st.permutations(range(len(groups))))
    places = data.draw(st.permutations(range(3)))
    moved = [
        ScoredGroup(
            id="",
            dataset=groups[i].dataset,
            mos=groups[i].mos,
            scores=tuple(groups[i].scores[p] for p in places),
        )
        for i in images
    ]
    plain = fidelity(groups)
    assert fidelity(moved) == [[plain[i][p] for p in places] for i in images]


@settings(max_examples=50, deadline=None)
@given(groups=batches, shift=st.floats(-3, 3))
def test_shifting_all_scores_changes_nothing(groups: list[ScoredGroup], shift: float) -> None:
    moved = [
        group(g.mos, *[None if s is None else s + shift for s in g.scores], dataset=g.dataset) for g in groups
    ]
    # Without spread, p jumps from 0 to 1 within about the root of epsilon: rounding is magnified there.
    np.testing.assert_allclose(fidelity(moved), fidelity(groups), atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(groups=batches)
def test_bounds(groups: list[ScoredGroup]) -> None:
    for own, row in zip(groups, fidelity(groups), strict=True):
        for value, read in zip(row, own.scores, strict=True):
            assert value == 0 if read is None else LOWEST - 1e-12 <= value <= HIGHEST + 1e-12


def test_the_better_image_earns_more_with_a_higher_score() -> None:
    groups = [group(4.0, 2.0, 2.5, 3.0, 3.5), group(2.0, 2.9, 2.6, 3.1, 2.0)]
    better, worse = fidelity(groups)
    assert better == sorted(better)
    assert [worse[i] for i in (3, 1, 0, 2)] == sorted(worse, reverse=True)


def test_images_of_other_sets_are_not_met() -> None:
    groups = [group(3.0, 3.1, 3.2), group(2.0, 2.2, 2.0)]
    strangers = [group(1.0, 5.0, 4.0, dataset="two"), group(4.0, 1.0, 2.0, dataset="two")]
    mixed = fidelity([groups[0], strangers[0], groups[1], strangers[1]])
    assert [mixed[0], mixed[2]] == fidelity(groups)
    assert [mixed[1], mixed[3]] == fidelity(strangers)


def test_one_image_and_one_without_partner_earn_the_constant() -> None:
    assert fidelity([group(3.0, 3.0, None)]) == [[0.7, 0.0]]
    assert fidelity([group(3.0, 3.0, 2.0), group(3.0, 1.0, 2.0, dataset="two")]) == [[0.7] * 2] * 2
    assert fidelity([group(3.0, 3.0, 2.0), group(3.0, None, None)]) == [[0.7, 0.7], [0.0, 0.0]]
    assert fidelity([]) == []


def test_a_tie_of_opinions_wants_equal_scores() -> None:
    near, far = fidelity([group(3.0, 3.0, 4.0), group(3.0, 2.9, 3.1)])[0]
    assert near == pytest.approx(2 * math.sqrt(0.25 + 1e-6), abs=1e-12)
    assert far < near
    assert fidelity([group(3.0, 3.0), group(3.0, 3.0)], form="binary") == [[1.0], [1.0]]


def test_a_single_parsed_score_has_no_variance() -> None:
    own, other = fidelity([group(4.0, 3.001, None), group(2.0, 3.0, None)])
    p = norm.cdf(0.001 / 1e-3)
    assert own[0] == pytest.approx(math.sqrt(p + 1e-6) + math.sqrt(1e-6), abs=1e-9)
    assert other == own


def test_scores_that_are_no_numbers_are_not_scores() -> None:
    with pytest.raises(AssertionError):
        group(3.0, math.nan)


def test_equal_means_are_a_tie_in_the_binary_form() -> None:
    """Two groups with one answer each, both of which mean 2.988: p is 1/2, which only equal opinions earn."""
    scores = [
        average(aspects).score for aspects in ((3.05, 2.14, 4.51, 2.41, 2.83), (3.14, 3.72, 1.11, 3.54, 3.43))
    ]
    assert scores[0] != scores[1]
    for mos, earned in (((3.0, 3.0), 1.0), ((2.0, 4.0), 0.0)):
        groups = [group(y, score) for y, score in zip(mos, scores, strict=True)]
        assert fidelity(groups, form="binary") == [[earned], [earned]]


@given(batches)
def test_votes_of_answers_against_a_second_implementation(groups: list[ScoredGroup]) -> None:
    for row, expected in zip(fidelity(groups, truth="votes"), twin(groups, truth="votes"), strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-9)


def test_votes_read_no_opinion() -> None:
    """Two of three answers rank the first image above the second, whatever people said."""
    rows = (3.0, 3.5, 1.0), (2.0, 2.5, 2.0)
    for moss in ((1.0, 5.0), (5.0, 1.0), (2.0, 2.0)):
        groups = [group(mos, *row) for mos, row in zip(moss, rows, strict=True)]
        (first, second, odd), _ = fidelity(groups, truth="votes")
        assert second > first > odd
        assert fidelity(groups, truth="votes") == fidelity(
            [group(2.0, *rows[0]), group(1.0, *rows[1])], truth="opinions"
        )
