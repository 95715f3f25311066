from __future__ import annotations

import numpy as np
import pytest

from qhk.data.miniature.opinion import collect_opinions


def test_mean_opinion_follows_quality_and_raters_differ() -> None:
    quality = np.linspace(0.05, 0.95, 400)
    opinions = collect_opinions(quality, np.random.default_rng(0), num_raters=30, bias=0.06, noise=0.12)
    assert opinions.shape == (400, 30)
    assert opinions.min() >= 0 and opinions.max() <= 1
    assert np.corrcoef(opinions.mean(axis=1), quality)[0, 1] > 0.98
    assert opinions.mean(axis=0).std() == pytest.approx(0.06, abs=0.03)  # the raters' biases


def test_disagreement_peaks_in_the_middle() -> None:
    quality = np.repeat([0.02, 0.5, 0.98], 500)
    opinions = collect_opinions(quality, np.random.default_rng(0), num_raters=30, bias=0.0, noise=0.15)
    low, middle, high = opinions.std(axis=1).reshape(3, 500).mean(axis=1)
    assert middle > 1.3 * max(low, high)
