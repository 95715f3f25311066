"""How varied what the model says is. A handful of distinct scores flatters rank correlation by ties."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from qhk.types import SCORE_DECIMALS


def num_distinct(scores: Sequence[float]) -> int:
    """Return the number of different values among ``scores``, at ``SCORE_DECIMALS``; 0 for none."""
    return len({round(score, SCORE_DECIMALS) for score in scores})


def score_entropy(samples: Sequence[Sequence[float | None]]) -> float:
    """Return the entropy ``-sum p ln p`` (nats) of the scores of single samples; NaN where nothing parsed.

    ``samples`` holds the sampled scores of each image. All parsed ones are pooled and counted per
    distinct value, at ``SCORE_DECIMALS``. 0 when the model always says one number; at most ``ln`` of the
    distinct values.
    """
    counts = Counter(
        round(score, SCORE_DECIMALS) for image in samples for score in image if score is not None
    )
    total = counts.total()
    if total == 0:
        return float("nan")
    # + 0.0 turns the -0.0 of a single value into 0.0
    return -math.fsum(count / total * math.log(count / total) for count in counts.values()) + 0.0


def within_image_spread(samples: Sequence[Sequence[float | None]]) -> float:
    """Return the mean over images of the unbiased standard deviation of an image's sampled scores.

    Images with fewer than two parsed samples have none and are left out; NaN where that leaves no image.
    """
    parsed = [[score for score in image if score is not None] for image in samples]
    spreads = [float(np.std(scores, ddof=1)) for scores in parsed if len(scores) > 1]
    return math.fsum(spreads) / len(spreads) if spreads else float("nan")


def distinct_runs(texts: Sequence[str], *, length: int) -> float:
    """Return how many different runs of ``length`` words all texts have, over all their runs; NaN for none.

    1 where no run of words occurs twice. More text has a smaller share: it compares the same images and
    samples. Source: Li et al. 2016 (distinct-n), section 5.
    """
    runs = Counter(run for text in texts for run in _runs(text, length))
    return len(runs) / runs.total() if runs else math.nan


def repeated_runs(texts: Sequence[str], *, length: int) -> float:
    """Return the mean over texts of the share of runs of ``length`` words that the same text had before.

    Texts of fewer words are left out; NaN where that leaves none. Source: Welleck et al. 2020 (seq-rep-n),
    section 6.1.
    """
    shares = [1 - len(set(runs)) / len(runs) for text in texts if (runs := _runs(text, length))]
    return math.fsum(shares) / len(shares) if shares else math.nan


def _runs(text: str, length: int) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return [tuple(words[first : first + length]) for first in range(len(words) - length + 1)]
