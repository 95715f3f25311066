from __future__ import annotations

from dataclasses import replace

import pytest

from qhk.objective.terms import Needs, Terms

PLAIN = Terms(
    ratio="token",
    clip_low=0.2,
    clip_high=0.2,
    aggregation="sequence_mean",
    constant_length=None,
    kl_coef=0.0,
    kl_estimator="k3",
    entropy_coef=0.0,
    entropy_scope="completion",
    perception="none",
    gamma=0.0,
    exponent_bound=20.0,
    value_bound=10.0,
    perception_aggregation="token_mean",
    entropy="off",
    eta_original=0.0,
    eta_degraded=0.0,
)
NOTHING = Needs(
    reference=False,
    original_entropy=False,
    degraded=False,
    degraded_entropy=False,
    degraded_gradient=False,
    exact_kl=False,
    answer_tokens=False,
)


def needs(**changes: object) -> set[str]:
    found = replace(PLAIN, **changes).needs()  # type: ignore[arg-type]
    return {name for name, needed in vars(found).items() if needed}


def test_plain_policy_gradient_needs_nothing() -> None:
    assert PLAIN.needs() == NOTHING


def test_each_term_asks_for_what_it_reads() -> None:
    assert needs(kl_coef=0.04) == {"reference"}
    assert needs(entropy_coef=0.01) == {"original_entropy"}
    assert needs(entropy_coef=0.01, entropy_scope="answer") == {"original_entropy", "answer_tokens"}
    assert needs(perception="release", gamma=1e-4) == {"degraded"}
    assert needs(perception="paper", gamma=1e-4) == {"degraded", "degraded_gradient"}
    assert needs(perception="exact", gamma=1e-4) == {"degraded", "degraded_gradient", "exact_kl"}


def test_entropies_ask_for_their_branch() -> None:
    for form in ("release", "paper", "exact"):
        assert needs(perception=form, entropy="exact", eta_original=1e-3) == {"original_entropy"}
        assert needs(perception=form, entropy="exact", eta_degraded=1e-3) == {
            "degraded",
            "degraded_entropy",
            "degraded_gradient",
        }
        assert needs(perception=form, entropy="sampled", eta_original=1e-3) == set()
        assert needs(perception=form, entropy="sampled", eta_degraded=1e-3) == {"degraded"}


def test_what_is_off_costs_nothing() -> None:
    strong = {"gamma": 1.0, "eta_original": 1.0, "eta_degraded": 1.0, "entropy_scope": "answer"}
    assert needs(perception="none", entropy="exact", **strong) == set()
    assert needs(perception="exact", entropy="off", gamma=0.0, eta_original=1.0, eta_degraded=1.0) == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"perception": "both"}, r"perception\.form: unknown 'both'"),
        ({"entropy": "sum"}, r"perception\.entropy: unknown 'sum'"),
        ({"entropy_scope": "score"}, r"objective\.entropy_scope: unknown 'score'"),
        ({"gamma": -1.0}, r"perception\.gamma: got -1\.0; must be >= 0"),
        ({"kl_coef": float("nan")}, r"objective\.kl_coef: got nan"),
        ({"entropy_coef": -0.1}, r"objective\.entropy_coef"),
        ({"eta_original": -0.1}, r"perception\.eta_original"),
        ({"eta_degraded": -0.1}, r"perception\.eta_degraded"),
    ],
)
def test_refusals_name_the_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **change)  # type: ignore[arg-type]
