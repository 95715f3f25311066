"""Agreement of predicted scores with human scores.

Every function takes predictions ``(n,)`` and human scores ``(n,)`` of the same images and works in
float64. A constant side has no correlation: the value is NaN, never 0. Fewer than three images give
NaN throughout, errors included, since no cell of a table should rest on two images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from qhk.errors import UserError

Array = npt.NDArray[np.float64]
Scores = Sequence[float] | Array

MIN_IMAGES = 3
RELATIVE_SPREAD = 1e-12
"""A range below this fraction of the largest magnitude is rounding, so the side counts as constant."""

SLOPE = (0.05, 0.95)
"""Images whose fitted value lies between these parts of its range are on the slope of the curve."""

STEP_SHARE = 0.1
"""With fewer of the images on its slope than this, the fitted curve is a step."""


@dataclass(frozen=True, kw_only=True)
class LogisticPlcc:
    """PLCC after the logistic fit, and the predictions ``(n,)`` it was taken on.

    ``fallback`` is empty where the fit was used; otherwise it says in a few words why ``value`` is
    the raw PLCC and ``fitted`` the raw predictions. ``is_step``: the curve puts nearly all images
    on two levels, split where that suits their mos best, so ``value`` flatters.
    """

    value: float
    fitted: Array
    fallback: str
    is_step: bool = False


def as_pair(prediction: Scores, mos: Scores) -> tuple[Array, Array]:
    """Return both sides as float64 ``(n,)``.

    Raises ``UserError`` on unequal lengths and on an entry that is not finite."""
    x, y = np.asarray(prediction, dtype=np.float64), np.asarray(mos, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise UserError(f"predictions {x.shape} and mos {y.shape} must be two lists of one length")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("predictions and mos must be finite: leave unparsed images out first")
    return x, y


def is_constant(values: Array) -> bool:
    """Return true where the values ``(n,)`` do not differ beyond rounding; True for an empty array."""
    if values.size == 0:
        return True
    return bool(np.ptp(values) <= RELATIVE_SPREAD * np.abs(values).max())


def plcc(prediction: Scores, mos: Scores) -> float:
    """Return the Pearson correlation in [-1, 1], raw (no fit)."""
    x, y = as_pair(prediction, mos)
    if len(x) < MIN_IMAGES or is_constant(x) or is_constant(y):
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def srcc(prediction: Scores, mos: Scores) -> float:
    """Return the Spearman correlation in [-1, 1]: Pearson on ranks, ties share their average rank."""
    x, y = as_pair(prediction, mos)
    if len(x) < MIN_IMAGES or is_constant(x) or is_constant(y):
        return float("nan")
    return plcc(stats.rankdata(x), stats.rankdata(y))


def krcc(prediction: Scores, mos: Scores) -> float:
    """Return Kendall's tau-b in [-1, 1]: concordant minus discordant pairs, corrected for ties."""
    x, y = as_pair(prediction, mos)
    if len(x) < MIN_IMAGES or is_constant(x) or is_constant(y):
        return float("nan")
    return float(stats.kendalltau(x, y, variant="b").statistic)


def rmse(prediction: Scores, mos: Scores) -> float:
    """Return root mean squared error, in units of ``mos``."""
    x, y = as_pair(prediction, mos)
    return float(np.sqrt(np.mean((x - y) ** 2))) if len(x) >= MIN_IMAGES else float("nan")


def mae(prediction: Scores, mos: Scores) -> float:
    """Return mean absolute error, in units of ``mos``."""
    x, y = as_pair(prediction, mos)
    return float(np.mean(np.abs(x - y))) if len(x) >= MIN_IMAGES else float("nan")


def logistic(x: Array, parameters: Array) -> Array:
    """Return ``(b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2`` without overflow."""
    b1, b2, b3, b4 = parameters
    curve: Array = (b1 - b2) * special.expit((x - b3) / b4) + b2
    return curve


def logistic_jacobian(x: Array, parameters: Array) -> Array:
    """Return derivatives ``(n, 4)`` of :func:`logistic` by its parameters."""
    b1, b2, b3, b4 = parameters
    place = (x - b3) / b4
    rising = special.expit(place)
    slope = (b1 - b2) * rising * special.expit(-place) / b4
    return np.stack([rising, 1 - rising, -slope, -slope * place], axis=1)


def fit_logistic(prediction: Array, mos: Array) -> Array | None:
    """Return the least-squares parameters ``(4,)`` of the logistic from prediction to mos, or None.

    Trust-region steps from (max mos, min mos, mean prediction, std prediction / 4), the start of
    DeQA-Score's evaluation script. Needs at least four images, else None.
    """
    if len(prediction) < 4:
        return None
    start = np.array([mos.max(), mos.min(), prediction.mean(), prediction.std() / 4])

    def residual(parameters: Array) -> Array:
        return logistic(prediction, parameters) - mos

    def jacobian(parameters: Array) -> Array:
        return logistic_jacobian(prediction, parameters)

    with np.errstate(all="ignore"):
        # Not "lm": where two parameters cannot be told apart, MINPACK's steps follow what memory held before.
        fit = optimize.least_squares(
            residual, start, jac=jacobian, method="trf", x_scale="jac", max_nfev=5000
        )
    return fit.x if fit.success and np.isfinite(fit.x).all() else None


def logistic_plcc(prediction: Scores, mos: Scores) -> LogisticPlcc:
    """Return PLCC between the fitted logistic of the predictions and mos, or the raw PLCC with the reason.

    Falls back to raw where the fit does not converge; where the fitted curve falls or is flat (a
    falling curve would show an inverted ranking as a positive correlation); and where the fit gives
    less than raw (least squares bounds the error, not the correlation of a curve it left early).
    """
    x, y = as_pair(prediction, mos)
    raw = plcc(x, y)
    if np.isnan(raw):
        return LogisticPlcc(value=raw, fitted=x, fallback="no correlation")
    parameters = fit_logistic(x, y)
    if parameters is None:
        return LogisticPlcc(value=raw, fitted=x, fallback="no convergence")
    fitted = logistic(x, parameters)
    if (parameters[0] - parameters[1]) * parameters[3] <= 0 or is_constant(fitted):
        return LogisticPlcc(value=raw, fitted=x, fallback="curve does not rise")
    value = plcc(fitted, y)
    if not value >= raw:
        return LogisticPlcc(value=raw, fitted=x, fallback="fit below raw")
    return LogisticPlcc(value=value, fitted=fitted, fallback="", is_step=_is_step(x, fitted))


def _is_step(prediction: Array, fitted: Array) -> bool:
    """Return whether a rising curve takes the predictions ``(n,)`` to little else than two levels.

    False for predictions of fewer than three values, of which every curve does so.
    """
    if len(np.unique(prediction)) < 3 or is_constant(fitted):
        return False
    height = (fitted - fitted.min()) / np.ptp(fitted)
    low, high = SLOPE
    return bool(np.mean((height > low) & (height < high)) < STEP_SHARE)


POINT_METRICS: dict[str, Callable[[Scores, Scores], float]] = {
    "srcc": srcc,
    "plcc": plcc,
    "krcc": krcc,
    "rmse": rmse,
    "mae": mae,
}
"""The metrics of one pair of lists, by the name they carry in results and in the tracker."""
