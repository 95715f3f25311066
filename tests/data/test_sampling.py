from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.data.sampling import Draw, epoch_quotas, set_order, step_indices


def draws(
    steps: range, *, seed: int = 0, batch: int, sizes: dict[str, int], weights: dict[str, float]
) -> list[Draw]:
    return [
        draw
        for step in steps
        for draw in step_indices(seed, step, sizes=sizes, weights=weights, prompts_per_step=batch)
    ]


def test_one_set_is_seen_once_per_epoch() -> None:
    seen = draws(range(6), batch=5, sizes={"a": 10}, weights={"a": 3.0})
    for epoch in range(3):
        part = seen[10 * epoch : 10 * epoch + 10]
        assert sorted(draw.index for draw in part) == list(range(10))
        assert {draw.epoch for draw in part} == {epoch}
    assert [draw.index for draw in seen[:10]] != [draw.index for draw in seen[10:20]]


def test_steps_do_not_depend_on_each_other_and_cross_epochs() -> None:
    sizes, weights = {"a": 7, "b": 4}, {"a": 1.0, "b": 2.0}
    whole = draws(range(12), batch=3, sizes=sizes, weights=weights)
    assert draws(range(7, 12), batch=3, sizes=sizes, weights=weights) == whole[21:]
    assert draws(range(18), batch=2, sizes=sizes, weights=weights) == whole


def test_concatenation_shows_every_image_once_per_epoch() -> None:
    sizes = {"a": 7, "b": 4, "c": 1}
    seen = draws(range(4), batch=3, sizes=sizes, weights={name: 10.0 * size for name, size in sizes.items()})
    assert Counter((draw.dataset, draw.index) for draw in seen) == Counter(
        {(name, index): 1 for name, size in sizes.items() for index in range(size)}
    )


def test_weights_set_the_shares_and_passes_run_without_replacement() -> None:
    seen = draws(range(30), batch=4, sizes={"a": 10, "b": 2}, weights={"a": 1.0, "b": 1.0})
    assert Counter(draw.dataset for draw in seen) == {"a": 60, "b": 60}
    for name, size in (("a", 10), ("b", 2)):
        own = [draw for draw in seen if draw.dataset == name]
        for start in range(0, len(own), size):
            assert {draw.index for draw in own[start : start + size]} == set(range(size))
            assert {draw.epoch for draw in own[start : start + size]} == {start // size}


def test_key_order_is_irrelevant_and_seed_is_not() -> None:
    one = draws(range(5), batch=4, sizes={"a": 9, "b": 9}, weights={"a": 1.0, "b": 1.0})
    assert one == draws(range(5), batch=4, sizes={"b": 9, "a": 9}, weights={"b": 2.0, "a": 2.0})
    assert one != draws(range(5), seed=1, batch=4, sizes={"a": 9, "b": 9}, weights={"a": 1.0, "b": 1.0})


def test_batch_larger_than_the_epoch() -> None:
    seen = draws(range(1), batch=7, sizes={"a": 3}, weights={"a": 1.0})
    assert Counter(draw.index for draw in seen[:6]) == {0: 2, 1: 2, 2: 2}


@given(
    st.dictionaries(
        st.sampled_from("abcde"), st.tuples(st.integers(1, 50), st.floats(0.01, 100.0)), min_size=1
    )
)
def test_quotas_add_up_and_are_near_their_shares(sets: dict[str, tuple[int, float]]) -> None:
    sizes, weights = {k: v[0] for k, v in sets.items()}, {k: v[1] for k, v in sets.items()}
    quotas = epoch_quotas(sizes, weights)
    total = sum(sizes.values())
    assert sum(quotas.values()) == total
    for name, quota in quotas.items():
        assert abs(quota - total * weights[name] / sum(weights.values())) < 1 + 1e-9


def test_order_is_a_permutation_of_its_own() -> None:
    assert sorted(set_order(0, "a", 0, 50)) == list(range(50))
    assert set_order(0, "a", 0, 50).tolist() != set_order(0, "b", 0, 50).tolist()


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ({"a": 0}, {"a": 1.0}, r"data: a has no training image"),
        ({"a": 1}, {"a": 0.0}, r"data: a must be a weight > 0, got 0\.0"),
        ({"a": 1}, {"b": 1.0}, "they must agree"),
    ],
)
def test_refusals(sizes: dict[str, int], weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        step_indices(0, 0, sizes=sizes, weights=weights, prompts_per_step=1)
