from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.objective.schedule import schedule_factor


def factors(num: int, **settings: object) -> list[float]:
    return [schedule_factor(step, **settings) for step in range(num)]  # type: ignore[arg-type]


def test_constant_never_ends_or_drops_to_final() -> None:
    assert factors(3, form="constant", warmup_steps=0, until_steps=None, final=0.0) == [1.0] * 3
    assert factors(4, form="constant", warmup_steps=0, until_steps=2, final=0.25) == [1.0, 1.0, 0.25, 0.25]


def test_linear_by_hand() -> None:
    got = factors(8, form="linear", warmup_steps=2, until_steps=6, final=0.2)
    assert got == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_a_warmup_from_zero_by_hand() -> None:
    shape = {"form": "linear", "until_steps": 6, "final": 0.0, "warmup_from": "zero"}
    assert factors(7, warmup_steps=2, **shape) == pytest.approx([0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0])
    assert factors(3, warmup_steps=0, **shape) == pytest.approx([1.0, 5 / 6, 4 / 6])


@pytest.mark.parametrize("form", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_from_zero_the_rate_is_that_of_transformers(form: str, warmup: int) -> None:
    import torch
    from transformers import optimization

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    make = getattr(optimization, f"get_{form}_schedule_with_warmup")
    theirs, rates = make(optimizer, num_warmup_steps=warmup, num_training_steps=12), []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = factors(12, form=form, warmup_steps=warmup, until_steps=12, final=0.0, warmup_from="zero")
    assert ours == pytest.approx(rates, abs=1e-12)


def test_release_gamma_is_half_a_cosine_and_zero_afterwards() -> None:
    steps_per_epoch, end = 10, 50
    got = factors(60, form="cosine", warmup_steps=0, until_steps=end, final=0.0)
    expected = [
        0.5 * (1 + math.cos(math.pi * (step / steps_per_epoch) / 5)) if step < end else 0.0
        for step in range(60)
    ]
    assert got == pytest.approx(expected, abs=1e-15)
    assert got[25] == pytest.approx(0.5)
    assert got[50:] == [0.0] * 10


@given(
    st.sampled_from(["constant", "linear", "cosine"]),
    st.integers(0, 10),
    st.integers(0, 40),
    st.floats(0, 1),
    st.integers(0, 60),
)
def test_stays_between_its_ends(form: str, warmup: int, until: int, final: float, step: int) -> None:
    factor = schedule_factor(step, form=form, warmup_steps=warmup, until_steps=until, final=final)  # type: ignore[arg-type]
    assert 0.0 <= factor <= 1.0
    if step >= until:
        assert factor == final
    elif step >= warmup:
        assert factor >= final - 1e-12


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"schedule\.until: missing; form=cosine"):
        schedule_factor(0, form="cosine", warmup_steps=0, until_steps=None, final=0.0)
    with pytest.raises(ValueError, match=r"schedule\.form: unknown 'step'"):
        schedule_factor(0, form="step", warmup_steps=0, until_steps=1, final=0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be >= 0"):
        schedule_factor(-1, form="constant", warmup_steps=0, until_steps=None, final=0.0)
