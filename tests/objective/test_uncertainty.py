from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from qhk.objective.uncertainty import (
    answer_entropies,
    group_variances,
    largest_variance,
    relative_uncertainty,
    smoothed_variances,
    uncertainty_weights,
)

NAN = math.nan
FORMS = ["exponential", "linear", "inverse", "rank", "answer_entropy"]


def uncertainty(scores: list[list[float]], **changes: object) -> Tensor:
    return uncertainty_of(torch.tensor(scores, dtype=torch.float64), **changes)


def uncertainty_of(scores: Tensor, **changes: object) -> Tensor:
    settings: dict[str, object] = {"low": 1.0, "high": 5.0, "minimum_parsed": 2, "out_of_range": "clip"}
    chosen = settings | {"normaliser": "fixed_maximum"} | changes
    normaliser = chosen.pop("normaliser")
    variances = group_variances(scores, **chosen)  # type: ignore[arg-type]
    largest = largest_variance(chosen["low"], chosen["high"])  # type: ignore[arg-type]
    return relative_uncertainty(variances, largest=largest, normaliser=normaliser)  # type: ignore[arg-type]


def weights(u: list[float], form: str, alpha: float = 0.2, unparsed: float | str = 0.5) -> list[float]:
    values = torch.tensor(u, dtype=torch.float64)
    return uncertainty_weights(values, form=form, alpha=alpha, unparsed_weight=unparsed).tolist()  # type: ignore[arg-type]


def test_published_vectors() -> None:
    u = uncertainty([[1, 5, 1, 5], [3, 3, 3, 3], [3, NAN, NAN, NAN]])
    assert u[:2].tolist() == [1.0, 0.0]
    assert u[2].isnan()
    assert weights(u.tolist(), "exponential", unparsed=1.0) == pytest.approx([0.8187308, 1.0, 1.0], abs=1e-7)
    single = uncertainty([[3, NAN, NAN, NAN]], minimum_parsed=1)
    assert single.tolist() == [0.0]


def test_published_strengths() -> None:
    # standard deviations .3, .5 and 1 of the scores
    u = uncertainty([[3 - s, 3 + s] for s in (0.3, 0.5, 1.0)])
    assert weights(u.tolist(), "exponential") == pytest.approx([0.9955, 0.9876, 0.9512], abs=5e-5)


def test_equals_a_loop_over_parsed_scores() -> None:
    scores = [[1.2, NAN, 4.4, 3.0], [2.0, 2.5, NAN, NAN], [5.0, 1.0, 1.5, 2.0]]
    expected = [statistics.pvariance([s for s in row if s == s]) / 4 for row in scores]
    assert uncertainty(scores).tolist() == pytest.approx(expected, rel=1e-13)
    largest = max(expected)
    got = uncertainty(scores, normaliser="batch_relative").tolist()
    assert got == pytest.approx([value / largest for value in expected], rel=1e-13)


def test_batch_relative_ignores_groups_without_uncertainty() -> None:
    u = uncertainty([[1, 5, NAN], [2, 3, 4], [1, NAN, NAN]], normaliser="batch_relative", minimum_parsed=3)
    assert u[0].isnan()
    assert u[1] == 1.0
    assert u[2].isnan()
    assert uncertainty([[3, 3], [2, 2]], normaliser="batch_relative").tolist() == [0.0, 0.0]


def test_out_of_range_scores() -> None:
    clipped = uncertainty([[7, 3, 5, 5]])
    assert clipped.tolist() == uncertainty([[5, 3, 5, 5]]).tolist()
    refused = uncertainty([[7, 3, 5, 5]], out_of_range="refuse")
    assert refused.tolist() == uncertainty([[NAN, 3, 5, 5]]).tolist()
    assert refused.tolist() != clipped.tolist()
    assert uncertainty([[7, 3]], out_of_range="refuse").isnan().all()
    assert uncertainty([[1, 5]], out_of_range="refuse").tolist() == [1.0]


def test_equal_scores_are_exactly_certain() -> None:
    scores = torch.full((1, 7), 3.3, dtype=torch.float32)
    u = uncertainty_of(scores)
    assert u.tolist() == [0.0]


def test_forms_by_hand() -> None:
    u = [0.0, 0.25, 1.0]
    assert weights(u, "exponential", 2.0) == pytest.approx([1.0, math.exp(-0.5), math.exp(-2.0)])
    assert weights(u, "linear", 0.8) == pytest.approx([1.0, 0.8, 0.2])
    assert weights(u, "inverse", 2.0) == pytest.approx([1.0, 1 / 1.5, 1 / 3])
    assert weights([0.9, 0.1, 0.5], "rank", 0.5) == pytest.approx([0.5, 1.0, 0.75])


def test_rank_averages_ties_and_ranks_known_groups_only() -> None:
    # ranks of .1 .3 .3 .7 are 0, 1.5, 1.5, 3 among four known groups
    got = weights([0.3, NAN, 0.1, 0.7, 0.3], "rank", 0.6, unparsed=0.9)
    assert got == pytest.approx([0.7, 0.9, 1.0, 0.4, 0.7])
    assert weights([0.4], "rank", 0.6) == [1.0]
    assert weights([0.4, NAN], "rank", 0.6, unparsed="minimum") == pytest.approx([1.0, 0.4])


def test_none_is_exactly_one_even_where_nothing_parsed() -> None:
    assert weights([0.3, NAN, 1.0], "none", alpha=7.0) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("form", "expected"),
    [("exponential", math.exp(-0.5)), ("linear", 0.5), ("inverse", 1 / 1.5), ("rank", 0.5)],
)
def test_minimum_is_what_the_most_uncertain_would_weigh(form: str, expected: float) -> None:
    assert weights([NAN, 0.1], form, 0.5, unparsed="minimum")[0] == pytest.approx(expected)


@pytest.mark.parametrize("form", FORMS)
def test_zero_strength_is_exactly_one(form: str) -> None:
    for unparsed in ("minimum", 0.5):  # also a group that would weigh a number of its own
        assert weights([0.0, 0.3, 1.0, NAN], form, 0.0, unparsed=unparsed) == [1.0] * 4


@given(
    st.sampled_from(FORMS),
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=6),
    st.floats(0.0009765625, 0.984375, width=32),
)
def test_weights_lie_in_range_and_fall_with_uncertainty(form: str, u: list[float], alpha: float) -> None:
    got = weights(u, form, alpha)
    assert all(0.0 < weight <= 1.0 for weight in got)
    for first, first_weight in zip(u, got, strict=True):
        for second, second_weight in zip(u, got, strict=True):
            assert not (first < second and first_weight < second_weight)
            assert not (first + 1e-3 < second and first_weight <= second_weight)


@given(
    st.lists(st.floats(1, 5, width=32), min_size=2, max_size=6),
    st.permutations(range(6)),
    st.sampled_from(["fixed_maximum", "batch_relative"]),
)
def test_uncertainty_lies_in_range_and_ignores_order(
    group: list[float], order: list[int], normaliser: str
) -> None:
    shuffled = [group[i] for i in order if i < len(group)]
    u = uncertainty([group, shuffled], normaliser=normaliser)
    assert ((u >= 0) & (u <= 1)).all()
    torch.testing.assert_close(u[0], u[1], rtol=1e-6, atol=1e-9)


@given(st.lists(st.floats(2, 4, width=32), min_size=3, max_size=6))
def test_wider_spread_is_less_certain(group: list[float]) -> None:
    assume(max(group) - min(group) > 0.1)
    mean = statistics.fmean(group)
    wider = [mean + 1.2 * (score - mean) for score in group]
    narrow, wide = uncertainty([group, wider], low=0.0, high=6.0).tolist()
    assert narrow < wide


def test_nothing_carries_gradient() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    u = uncertainty_of(scores)
    assert not u.requires_grad


def test_refusals_name_the_key() -> None:
    for change, message in (
        ({"normaliser": "max"}, r"uncertainty\.normaliser: unknown 'max'"),
        ({"minimum_parsed": 0}, r"uncertainty\.minimum_parsed: got 0"),
        ({"out_of_range": "drop"}, r"uncertainty\.out_of_range: unknown 'drop'"),
        ({"high": 1.0}, r"task\.low, task\.high"),
    ):
        with pytest.raises(ValueError, match=message):
            uncertainty([[1, 2]], **change)
    for form, alpha, unparsed, message in (
        ("linear", 1.5, 1.0, r"uncertainty\.alpha: got 1\.5"),
        ("exponential", -0.1, 1.0, r"uncertainty\.alpha: got -0\.1"),
        ("cubic", 0.1, 1.0, r"uncertainty\.form: unknown 'cubic'"),
        ("inverse", 0.1, 2.0, r"uncertainty\.unparsed_weight: got 2\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            weights([0.1], form, alpha, unparsed)


def entropies(scores: list[list[float]], **changes: object) -> list[float]:
    settings = {"low": 1.0, "high": 5.0, "minimum_parsed": 2, "out_of_range": "clip"} | changes
    found: list[float] = answer_entropies(torch.tensor(scores, dtype=torch.float64), **settings).tolist()  # type: ignore[arg-type]
    return found


@given(st.lists(st.lists(st.sampled_from([1.0, 2.0, 2.5, 4.0, NAN]), min_size=5, max_size=5), min_size=1))
def test_entropy_equals_a_loop_over_distinct_answers(scores: list[list[float]]) -> None:
    for row, found in zip(scores, entropies(scores), strict=True):
        parsed = [score for score in row if score == score]
        if len(parsed) < 2:
            assert math.isnan(found)
            continue
        shares = [parsed.count(score) / len(parsed) for score in set(parsed)]
        assert found == pytest.approx(-sum(share * math.log(share) for share in shares), abs=1e-12)


def test_entropy_by_hand() -> None:
    """Zero where all say the same, log G where none do, whatever lies between the scores."""
    assert entropies([[3.0] * 4, [1.0, 2.0, 3.0, 4.0], [3.0, 3.01, 3.02, 3.03], [1.0, 1.0, 5.0, 5.0]]) == (
        pytest.approx([0.0, math.log(4), math.log(4), math.log(2)], abs=1e-15)
    )
    assert entropies([[3.0] * 4])[0] == 0.0, "exactly"
    clipped, refused = entropies([[5.0, 9.0]]), entropies([[5.0, 9.0, 5.0]], out_of_range="refuse")
    assert clipped == [0.0] and refused == [0.0]
    with pytest.raises(ValueError, match="minimum_parsed: got 0"):
        entropies([[1.0]], minimum_parsed=0)


def test_history_is_a_moving_average_of_what_an_image_showed() -> None:
    """By hand, decay 3/4: .75 * .4 + .25 * 0 = .3; an image met before its memory starts at what it shows."""
    memory = {"koniq/a": 0.4, "koniq/c": 1.0}
    now = torch.tensor([0.0, 0.8], dtype=torch.float64)
    smoothed, seen = smoothed_variances(now, ["koniq/a", "koniq/b"], memory, decay=0.75)
    assert smoothed.tolist() == pytest.approx([0.3, 0.8])
    assert seen == pytest.approx({"koniq/a": 0.3, "koniq/b": 0.8})
    assert memory == {"koniq/a": 0.4, "koniq/c": 1.0}


def test_history_of_constant_variance_stays_and_converges_otherwise() -> None:
    memory: dict[str, float] = {}
    for _ in range(60):
        smoothed, seen = smoothed_variances(torch.tensor([0.7]), ["a"], memory or {"a": 0.1}, decay=0.5)
        memory.update(seen)
    assert smoothed.tolist() == pytest.approx([0.7])


def test_an_image_twice_in_a_step_is_smoothed_twice_in_order() -> None:
    both, seen = smoothed_variances(torch.tensor([0.4, 0.0, 0.8]), ["a", "b", "a"], {"a": 0.0}, decay=0.5)
    first, half = smoothed_variances(torch.tensor([0.4, 0.0]), ["a", "b"], {"a": 0.0}, decay=0.5)
    second, rest = smoothed_variances(torch.tensor([0.8]), ["a"], half, decay=0.5)
    assert both.tolist() == [*first.tolist(), *second.tolist()]
    assert seen == half | rest


def test_unreadable_answers_are_not_certain_by_their_history() -> None:
    smoothed, seen = smoothed_variances(torch.tensor([NAN, 1.0]), ["a", "b"], {"a": 0.0}, decay=0.5)
    assert smoothed.isnan().tolist() == [True, False]
    assert "a" not in seen


def test_without_decay_there_is_no_memory_and_no_rounding() -> None:
    now = torch.tensor([0.1, NAN, 0.3], dtype=torch.float64)
    smoothed, seen = smoothed_variances(now, ["a", "b", "c"], {"a": 5.0}, decay=0.0)
    assert smoothed is now and seen == {}
    for wrong in (1.0, -0.1, NAN):
        with pytest.raises(ValueError, match=r"uncertainty\.history_decay: got"):
            smoothed_variances(now, ["a", "b", "c"], {}, decay=wrong)


@pytest.mark.parametrize("normaliser", ["fixed_maximum", "batch_relative"])
def test_equal_means_are_exactly_certain(normaliser: str) -> None:
    """Means of the same 2.988, of other terms: what floating point leaves between them is no uncertainty."""
    means = [math.fsum(t) / 5 for t in ((3.05, 2.14, 4.51, 2.41, 2.83), (3.14, 3.72, 1.11, 3.54, 3.43))]
    assert means[0] != means[1]
    assert uncertainty([means, [3.0, 3.0]], normaliser=normaliser).tolist() == [0.0, 0.0]


def test_equal_variances_are_of_one_rank() -> None:
    u = uncertainty([[3.1, 3.2], [4.1, 4.2], [1.1, 1.2], [1.0, 5.0]])
    assert len(set(u.tolist())) > 2
    assert weights(u.tolist(), "rank", alpha=0.3) == pytest.approx([0.9, 0.9, 0.9, 0.7])
