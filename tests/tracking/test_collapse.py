"""Signs of collapse: said of records that collapse, each sign for its own reason, and not of healthy ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qhk.tracking.collapse import collapse_context, collapse_signs
from qhk.tracking.recorder import MetricRow, MetricSection

ENTROPY, EQUAL = "train/scores/entropy", "train/group/equal_reward_frac"
FAILED, REWARD = "train/parse/failed_frac", "train/reward/total/mean"
HEALTHY = {ENTROPY: (3.3, 2.0), EQUAL: (0.0, 0.3), FAILED: (0.1, 0.0), REWARD: (0.6, 0.8), "srcc": (0.6, 0.7)}
"""What a run's figures begin and end with."""


def record(
    *, steps: int = 100, seed: int = 0, first: int = 0, **ends: tuple[float, float]
) -> list[MetricRow]:
    """The record of a run whose figures move evenly, with the noise of small batches; validated every 20."""
    random, rows = np.random.default_rng(seed), list[MetricRow]()
    figures = HEALTHY | {name.replace("__", "/"): values for name, values in ends.items()}
    for step in range(1, steps + 1):
        values = {
            name: start + (end - start) * step / steps + random.normal(0, 0.03)
            for name, (start, end) in figures.items()
        }
        value = values.pop("srcc")
        rows.append(MetricRow(step=first + step, section=MetricSection.TRAIN, metrics=values))
        if step % 20 == 0:
            validation = {"validation/srcc": value, "validation/plcc": 0.0}
            rows.append(MetricRow(step=first + step, section=MetricSection.VALIDATION, metrics=validation))
    return rows


def signs(rows: list[MetricRow], *, first: int = 0, num_images: int = 80) -> set[str]:
    return set(collapse_signs(rows, first=first, num_images=num_images))


def test_healthy_runs_have_none() -> None:
    """Scores grow fewer and groups more alike in every run that learns; validation moves by its own noise."""
    assert not any(signs(record(seed=seed)[:last]) for seed in range(40) for last in (10, 30, 60, 105))


@pytest.mark.parametrize(
    "ends, expected",
    [
        ({"train__scores__entropy": (3.3, 0.4)}, {"scores"}),
        ({"train__group__equal_reward_frac": (0.1, 1.0)}, {"rewards"}),
        ({"train__parse__failed_frac": (0.0, 0.6)}, {"answers"}),
        ({"srcc": (0.7, 0.2), "train__reward__total__mean": (0.8, 0.6)}, {"validation"}),
        ({"srcc": (0.7, 0.2)}, {"validation", "reward hacking"}),
    ],
)
def test_each_sign_has_its_own_reason(ends: dict[str, tuple[float, float]], expected: set[str]) -> None:
    assert all(signs(record(seed=seed, **ends)) == expected for seed in range(5))


def test_a_run_that_began_collapsed_has_not_moved() -> None:
    """Each figure is held against the run's own start: a task of two scores has little entropy throughout."""
    assert not signs(
        record(train__scores__entropy=(0.3, 0.3), train__group__equal_reward_frac=(0.9, 0.9), srcc=(0.1, 0.1))
    )


def test_a_fall_within_the_noise_of_few_images_is_no_sign() -> None:
    fall = record(srcc=(0.7, 0.45), train__reward__total__mean=(0.8, 0.8))
    assert "validation" not in signs(fall, num_images=15)
    assert "validation" in signs(fall, num_images=400)


def test_a_later_stage_has_its_own_start() -> None:
    rows = record() + record(first=100, train__scores__entropy=(0.7, 0.6), srcc=(0.3, 0.3))
    assert not signs(rows, first=100)
    assert {"validation", "scores"} <= signs(rows, first=0)


def test_training_is_judged_by_two_windows_that_do_not_overlap() -> None:
    def fallen(steps: int) -> list[MetricRow]:
        rows = record(steps=steps, train__reward__total__mean=(0.2, 0.9))
        values = [(1, 0.7), (steps - 1, 0.3), (steps, 0.3)]
        return rows + [
            MetricRow(step=step, section=MetricSection.VALIDATION, metrics={"validation/srcc": value})
            for step, value in values
        ]

    assert signs(fallen(15)) == {"validation"}
    assert signs(fallen(19)) == {"validation"} and "reward hacking" in signs(fallen(25))


def test_one_score_for_all_images_has_no_order() -> None:
    """Its correlation is not a number, which counts as none at all."""
    rows = record(steps=60)
    rows.append(MetricRow(step=80, section=MetricSection.VALIDATION, metrics={"validation/srcc": math.nan}))
    assert collapse_signs(rows, first=0, num_images=80)["validation"].startswith("validation/srcc 0.000")


def test_context_shows_start_and_present() -> None:
    rows = record(train__scores__distinct=(40, 10))
    assert collapse_context(rows, first=0).startswith("distinct scores 38.")
    assert collapse_context([], first=0) == ""
