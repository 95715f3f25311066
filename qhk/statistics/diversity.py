"""How varied the model's scores are. A handful of distinct scores flatters rank correlation by ties."""

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
