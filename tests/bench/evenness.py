"""How uneven processes and micro-batches are, with prompts in their order and dealt out by their tokens.

Run it with ``make bench-evenness`` or ``python -m tests.bench.evenness``; seconds. Simulated steps: pictures
with sides uniform in 256 to 1024 pixels, at most 786432 pixels each, 150 tokens of words; eight completions a
prompt, log-normal around a log-normal length of its own (median 150, at most 512). Printed is the largest
part's tokens over the mean part's, mean and 95th percentile over steps: the others wait for that part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qhk.training.balance import LEAST_TOKENS, deal, largest_sum

STEPS = 2000
MAX_PIXELS, PATCH, WORDS, LIMIT, GROUP = 786432, 28, 150, 512, 8
CASES = (
    *(("processes", prompts, parts) for prompts, parts in ((8, 4), (16, 4), (64, 8))),
    *(("micro-batches", prompts, 4) for prompts in (8, 16, 32)),
)
"""What is dealt out, prompts, parts."""


def prompts(rng: np.random.Generator, count: int) -> list[float]:
    """Tokens of prompts, which are known before a rollout."""
    pixels = np.minimum(rng.uniform(256, 1024, count) * rng.uniform(256, 1024, count), MAX_PIXELS)
    return list(pixels / PATCH**2 + WORDS)


def rows(rng: np.random.Generator, count: int) -> list[float]:
    """Tokens of prompts with their completions, which are known before an update."""
    own = rng.lognormal(np.log(150), 0.4, (count, 1)) * rng.lognormal(0, 0.4, (count, GROUP))
    answers = np.minimum(own, LIMIT).sum(1)
    return [prompt + answer for prompt, answer in zip(prompts(rng, count), answers, strict=True)]


def main() -> None:
    """Print a line for each case."""
    draws: dict[str, Callable[[np.random.Generator, int], list[float]]]
    draws = {"processes": prompts, "micro-batches": rows}
    print(f"{'':14} prompts parts | in order: mean   95% | dealt out: mean   95%")
    for kind, count, parts in CASES:
        rng, capacities = np.random.default_rng(0), [count // parts] * parts
        order = np.arange(count).reshape(parts, -1).tolist()
        ratios = []
        for _ in range(STEPS):
            sizes = draws[kind](rng, count)
            mean = sum(sizes) / parts
            found = (order, deal(sizes, capacities, least=LEAST_TOKENS))
            ratios.append([largest_sum(sizes, each) / mean for each in found])
        (before, after), (high, low) = np.mean(ratios, axis=0), np.quantile(ratios, 0.95, axis=0)
        print(f"{kind:14} {count:7d} {parts:5d} | {before:14.2f} {high:5.2f} | {after:15.2f} {low:5.2f}")


if __name__ == "__main__":
    main()
