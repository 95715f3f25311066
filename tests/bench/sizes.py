"""How often each test calls equal methods different, and how often it finds a difference that is there.

Simulated SRCC of two methods on 300 images: 25 references of 12 as in TID2013, where methods err alike on the
copies of a reference, or 300 references of one image. Each run adds what its seed does to a reference. The
worse method has noise of its own, so that its SRCC is lower by about the difference that is printed.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from qhk.statistics import comparison
from qhk.statistics.bootstrap import resampled_srcc
from qhk.statistics.correlation import srcc
from qhk.statistics.dependent import field_tests
from qhk.statistics.effects import Run, module_effects

LEVEL = 0.05


def simulated(
    rng: np.random.Generator, clusters: np.ndarray, *, seeds: int, worse: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of 2 x ``seeds`` runs ``(2 seeds, n)`` of two methods, and the opinions ``(n,)``."""
    mos = rng.normal(0, 1, clusters.size)
    runs = []
    for noise in (0.0, worse):
        method = mos + rng.normal(0, 0.6, clusters.max() + 1)[clusters] + rng.normal(0, 0.4, mos.size)
        method = method + rng.normal(0, noise, mos.size)
        runs += [method + rng.normal(0, 0.2, clusters.max() + 1)[clusters] for _ in range(seeds)]
    return np.array(runs), mos


def compared(trials: int, *, references: int, seeds: int, worse: float) -> tuple[float, Counter[str]]:
    """Return the mean difference and how often each test of two methods has a p below the level."""
    rng, found, differences = np.random.default_rng(0), Counter[str](), []
    clusters = np.repeat(np.arange(references), 300 // references)
    for _ in range(trials):
        runs, mos = simulated(rng, clusters, seeds=seeds, worse=worse)
        first, second = ({seed: seed + side * seeds for seed in range(seeds)} for side in (0, 1))
        for name, drawn in (("references drawn", clusters), ("images drawn", np.arange(mos.size))):
            scores = comparison.score_runs(
                runs, mos, drawn, point=srcc, resampled=resampled_srcc, num_resamples=200, seed=0
            )
            result = comparison.compare_methods([scores], first, second, confidence=1 - LEVEL)
            found[name] += result.p < LEVEL
        differences.append(result.value)
        means = runs.reshape(2, seeds, -1).mean(axis=1)
        formula = field_tests(*means, mos, ranked=True, on_scale=True, confidence=1 - LEVEL)
        found["Williams"] += formula.williams_p < LEVEL
        found["Zou"] += not formula.low <= 0 <= formula.high
        found["F of RMSE"] += formula.rmse_p < LEVEL
    return float(np.mean(differences)), found


def of_modules(trials: int, *, seeds: int, effect: float) -> tuple[int, int]:
    """Return how often any effect of two modules is found after correction, and how often the first one's.

    The first module adds ``effect``; runs vary by 0.015 and seeds by 0.03, as those of ``sweep=modules`` do.
    """
    rng = np.random.default_rng(1)
    runs = [
        Run(seed=seed, levels={"a": a, "b": b})
        for seed in range(seeds)
        for a in ("none", "on")
        for b in ("none", "on")
    ]
    some = first = 0
    for _ in range(trials):
        value = rng.normal(0, 0.015, len(runs)) + rng.normal(0, 0.03, seeds)[[run.seed for run in runs]]
        value += effect * np.array([run.levels["a"] == "on" for run in runs])
        images = rng.normal(0, 0.002, (len(runs), 50))
        scores = comparison.BenchmarkScores(value=value, redrawn=value[:, None] + images, num_clusters=50)
        effects = module_effects(
            runs, [scores], references={"a": "none", "b": "none"}, interactions=True, confidence=1 - LEVEL
        ).effects
        p = [one.p_adjusted for one in effects]
        some += min(p) < LEVEL
        first += p[0] < LEVEL
    return some, first


def main() -> None:
    """Prints shares of trials; the first line of each block is the size, the others are powers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    names = ("references drawn", "images drawn", "Williams", "Zou", "F of RMSE")
    print(f"{trials} trials; share with p < {LEVEL}")
    print("references  seeds  difference  " + "  ".join(names))
    for references, seeds in ((25, 1), (25, 3), (25, 5), (300, 1), (300, 5)):
        for worse in (0.0, 0.3, 0.6):
            difference, found = compared(trials, references=references, seeds=seeds, worse=worse)
            shares = "  ".join(f"{found[name] / trials:{len(name)}.3f}" for name in names)
            print(f"{references:10}  {seeds:5}  {difference:+10.3f}  {shares}", flush=True)
    for seeds in (3, 5):
        for effect in (0.0, 0.02, 0.04):
            some, first = of_modules(trials, seeds=seeds, effect=effect)
            shares = f"any {some / trials:.3f}, it {first / trials:.3f}"
            print(f"modules, {seeds} seeds, effect {effect:.2f}: {shares}", flush=True)


if __name__ == "__main__":
    main()
