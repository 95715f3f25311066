"""What each module adds, from runs whose configs differ by modules.

A linear model of the runs' scores: one column per level of a module against the module's reference level,
products of these for pairs of modules, and one block per seed, so that a hard seed weighs on nobody. A seed
with one combination of levels only compares nothing within itself: all such seeds are one block, so that runs
of disjoint seeds are compared as two samples are. Columns that the runs cannot tell apart from earlier ones
are left out and named.

Every effect is a weighted sum of runs. What seeds bring to it follows from the residuals, what images bring
from the same weighted sum over redrawn images (``comparison``); both are added.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qhk.statistics.comparison import BenchmarkScores, Estimate, Part, estimate, holm, image_parts
from qhk.statistics.correlation import Array

MIN_CHANGE = 1e-9
"""A column whose residual on earlier columns is shorter than this adds nothing to them."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the model sees it: its seed, and the level of each module by the module's name."""

    seed: int
    levels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How a level of one module, or a pair of them together, changes the score.

    ``modules`` holds one (module, level) for a main effect, two for an interaction: by how much the effect
    of the one is larger with the other than without. ``p_adjusted`` is Holm's over all effects.
    """

    modules: tuple[tuple[str, str], ...]
    estimate: Estimate
    p_adjusted: float

    @property
    def name(self) -> str:
        return " x ".join(f"{module}={level}" for module, level in self.modules)


@dataclass(frozen=True, kw_only=True)
class Effects:
    """All effects that the runs can tell, the names of those that they cannot, and the residuals' df.

    ``unpaired_seeds`` ran with one combination of levels only, so that they share a block.
    """

    effects: tuple[Effect, ...]
    not_estimable: tuple[str, ...]
    residual_df: int
    unpaired_seeds: tuple[int, ...]


def module_effects(
    runs: Sequence[Run],
    scores: Sequence[BenchmarkScores],
    *,
    references: Mapping[str, str],
    interactions: bool,
    confidence: float,
) -> Effects:
    """Return the effects of modules on the mean score over benchmarks.

    ``scores`` holds the same runs, in order, for every benchmark; ``references`` names each module's level
    that others are held against (``none``, usually). A column is 1 where a run has the level and 0 where it
    has another, centred over the levels, so that a main effect is the mean over the levels of the other
    modules where every combination was run. Intervals are NaN where no degree of freedom is left.
    """
    design, terms, not_estimable = _design(runs, references, interactions=interactions)
    mean = np.mean([benchmark.value for benchmark in scores], axis=0)
    weights = np.linalg.pinv(design)  # (columns, runs): row k gives coefficient k
    coefficients = weights @ mean
    residual_df = len(runs) - design.shape[1]
    residual = mean - design @ coefficients
    residual_variance = float(residual @ residual) / max(residual_df, 1)
    found = []
    for column, term in terms:
        seeds = Part(residual_variance * float(weights[column] @ weights[column]), residual_df)
        found.append(
            (
                term,
                estimate(
                    float(coefficients[column]),
                    [*image_parts(scores, weights[column]), seeds] if residual_df > 0 else [],
                    confidence=confidence,
                ),
            )
        )
    adjusted = holm([effect.p for _, effect in found])
    return Effects(
        effects=tuple(
            Effect(modules=term, estimate=effect, p_adjusted=p)
            for (term, effect), p in zip(found, adjusted, strict=True)
        ),
        not_estimable=tuple(not_estimable),
        residual_df=residual_df,
        unpaired_seeds=_unpaired_seeds(runs),
    )


Term = tuple[tuple[str, str], ...]


def _design(
    runs: Sequence[Run], references: Mapping[str, str], *, interactions: bool
) -> tuple[Array, list[tuple[int, Term]], list[str]]:
    """Return the columns ``(runs, k)``, the terms by their column, and the names of what cannot be told."""
    columns: list[Array] = [np.ones(len(runs))]
    unpaired = _unpaired_seeds(runs)
    paired = sorted({run.seed for run in runs} - set(unpaired))
    own_column = paired if unpaired else paired[1:]  # the block without one is what the ones stand for
    columns += [np.array([float(run.seed == seed) for run in runs]) for seed in own_column]
    main: list[tuple[Term, Array]] = []
    for module, reference in references.items():
        levels = dict.fromkeys(run.levels[module] for run in runs)
        for level in levels:
            if level != reference:
                has = np.array([float(run.levels[module] == level) for run in runs])
                main.append((((module, level),), has - 1 / len(levels)))
    pairs = [
        (one + other, first * second)
        for (one, first), (other, second) in itertools.combinations(main, 2)
        if interactions and one[0][0] != other[0][0]
    ]
    terms, not_estimable = [], []
    for term, column in [*main, *pairs]:
        basis = np.stack(columns, axis=1)
        left = column - basis @ np.linalg.lstsq(basis, column, rcond=None)[0]
        if np.linalg.norm(left) > MIN_CHANGE * max(1.0, float(np.linalg.norm(column))):
            terms.append((len(columns), term))
            columns.append(column)
        else:
            not_estimable.append(" x ".join(f"{module}={level}" for module, level in term))
    return np.stack(columns, axis=1), terms, not_estimable


def _unpaired_seeds(runs: Sequence[Run]) -> tuple[int, ...]:
    """Return the seeds that ran with one combination of levels only."""
    combinations: dict[int, set[tuple[tuple[str, str], ...]]] = {}
    for run in runs:
        combinations.setdefault(run.seed, set()).add(tuple(sorted(run.levels.items())))
    return tuple(sorted(seed for seed, found in combinations.items() if len(found) == 1))


def effect_sentence(
    effect: Effect, *, metric: str, level: float, by_benchmark: Mapping[str, Estimate]
) -> str:
    """Return the finding in words.

    ``uncertainty=linear: +0.012 SRCC [0.004, 0.020], p_adj 0.010; on kadid only``.
    ``level`` is the size below which ``p_adjusted`` counts. ``by_benchmark`` holds the same effect on each
    benchmark with ``p`` already corrected; those with p below ``level`` and the same sign are named.
    """
    whole = effect.estimate
    text = f"{effect.name}: {whole.value:+.3f} {metric}"
    if np.isnan(whole.p):
        return f"{text}; too few runs for an interval"
    p = "< 0.001" if effect.p_adjusted < 0.001 else f"{effect.p_adjusted:.3f}"
    text += f" [{whole.low:.3f}, {whole.high:.3f}], p_adj {p}"
    if not effect.p_adjusted < level:
        return f"{text}; no effect shown"
    shown = [
        name
        for name, single in by_benchmark.items()
        if single.p < level and (single.value > 0) == (whole.value > 0)
    ]
    if len(shown) == len(by_benchmark):
        return f"{text}; on every benchmark"
    return f"{text}; on {' and '.join(shown)} only" if shown else f"{text}; on no single benchmark"
