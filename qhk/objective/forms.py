"""The forms of the uncertainty weight and of the perception loss: the one list of each.

Settings check their names against these lists, so that this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class UncertaintyForm:
    """How a group's weight falls with its uncertainty.

    ``weight(u, alpha)``: uncertainties of any shape in [0, 1] and the strength -> weights of that shape, 1 at
    alpha 0 and never rising with u. ``largest_alpha``: the strength above which a weight would be negative.
    ``by_rank``: u is the group's rank among the groups of the step, divided by the last rank. ``by_entropy``:
    u is of the entropy of the group's answers, in place of the variance of their scores.
    """

    weight: Callable[[Tensor, float], Tensor]
    largest_alpha: float = math.inf
    by_rank: bool = False
    by_entropy: bool = False


def constant(u: Tensor, alpha: float) -> Tensor:
    """Return ``1`` exactly, whatever u is."""
    return u.new_ones(u.shape)


def exponential(u: Tensor, alpha: float) -> Tensor:
    """Return ``exp(-alpha u)`` (Q-Hawkeye, arXiv 2601.22920; alpha 0.2 in the release)."""
    return (-alpha * u).exp()


def linear(u: Tensor, alpha: float) -> Tensor:
    """Return ``1 - alpha u``, alpha in [0, 1]."""
    return 1.0 - alpha * u


def inverse(u: Tensor, alpha: float) -> Tensor:
    """Return ``1 / (1 + alpha u)``."""
    return 1.0 / (1.0 + alpha * u)


UNCERTAINTY_FORMS: Mapping[str, UncertaintyForm] = {
    "none": UncertaintyForm(weight=constant),
    "exponential": UncertaintyForm(weight=exponential),
    "linear": UncertaintyForm(weight=linear, largest_alpha=1.0),
    "answer_entropy": UncertaintyForm(weight=exponential, by_entropy=True),
    "inverse": UncertaintyForm(weight=inverse),
    "rank": UncertaintyForm(weight=linear, largest_alpha=1.0, by_rank=True),
}
"""``uncertainty.form`` -> the form. A new one is a function, a line here and a file in conf/uncertainty."""


@dataclass(frozen=True, kw_only=True)
class PerceptionForm:
    """How the divergence between original and degraded image is computed.

    ``exact``: over the whole vocabulary at each position, instead of estimated (k3) from the sampled tokens.
    ``degraded_gradient``: the gradient flows through the degraded branch too.
    """

    exact: bool
    degraded_gradient: bool


PERCEPTION_FORMS: Mapping[str, PerceptionForm | None] = {
    "none": None,
    "release": PerceptionForm(exact=False, degraded_gradient=False),
    "paper": PerceptionForm(exact=False, degraded_gradient=True),
    "papo": PerceptionForm(exact=False, degraded_gradient=True),
    "exact": PerceptionForm(exact=True, degraded_gradient=True),
}
"""``perception.form`` -> the form, None for no perception term. Each has a file in conf/perception."""
