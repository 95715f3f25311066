"""PreResQ-R1's options: the published accuracy, its formulas once more with loops, and what is corrected."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest

from qhk.rewards.term import RewardTerm
from qhk.tasks import find_form
from tests.rewards.steps import TASKS, Matrix, Step, answer, breakdown, example, total

Load = Callable[[str], list[RewardTerm]]

IQA = [
    [
        (4.38, 4.03, 2.68, 2.04, 3.05),
        (2.62, 4.14, 2.21, 2.91, 3.33),
        (4.63, 3.02, 2.13, 4.02, 3.47),
    ],
    [
        (2.00, 4.64, 4.93, 4.24, 4.61),
        (2.24, 3.92, 4.60, 3.74, 2.89),
        (1.40, 2.74, 3.44, 4.65, 4.87),
    ],
    [
        (2.91, 4.46, 2.04, 4.22, 3.19),
        (1.06, 3.88, 2.60, 4.30, 3.67),
        (1.00, 2.97, 4.47, 1.98, 2.30),
    ],
]
IQA_MOS = [3.1, 2.2, 4.05]
RELEASED = [[0.40964, 0.41233, 0.31403], [0.31345, 0.35278, 0.36960], [0.38716, 0.37038, 0.26888]]


def aspects_step(mos: Sequence[float], aspects: Sequence[Sequence[Sequence[float]]]) -> Step:
    texts = [[answer("\n".join(map(str, numbers))) for numbers in group] for group in aspects]
    return Step([example(y, {}) for y in mos], texts)


def test_the_release_for_images_gives_the_published_accuracy(load_terms: Load) -> None:
    terms, step = load_terms("preresq_r1_release"), aspects_step(IQA_MOS, IQA)
    values = breakdown(terms, step, "preresq_r1_release")
    np.testing.assert_allclose(total(terms, values, but="format"), RELEASED, atol=1e-5)
    assert (values["format"] == 1).all()


def released_accuracy(mos: Matrix, aspects: Matrix, is_image: bool) -> Matrix:
    """The released accuracy once more, term by term with loops: (B,), (B, G, D) -> (B, G). No ties."""
    size, group, width = aspects.shape
    mean = aspects.mean(2)
    ranks = mean.argsort(1)
    accuracy = np.zeros((size, group))
    for i in range(size):
        for j in range(group):
            place = list(ranks[i]).index(j)
            pairs = []
            for z in [z for z in range(size) if z != i]:
                a, b = mean[i, j], mean[z, ranks[z][place]]
                apart = abs(mos[i] - mos[z])
                share = apart / (apart + abs(a - mos[i]) + abs(b - mos[z]))
                pairs.append(math.sqrt(share if (a > b) == (mos[i] > mos[z]) else 1 - share))
            penalty = max(0.0, 0.5 * (0.5 - aspects[i, j].std()))
            dims = range(width - 1) if is_image else range(width)
            gain, cases = 0, 0
            for others in combinations([k for k in range(group) if k != j], 2):
                for d in dims:
                    gain += abs(aspects[i, j, d] - np.median(aspects[i, [j, *others], d])) < 0.05
                    cases += 1
            triplets = []
            for y, z in combinations([z for z in range(size) if z != i], 2):
                triplets += [
                    (mean[p, j] > mean[q, j]) == (mos[p] > mos[q]) for p, q in ((i, y), (i, z), (y, z))
                ]
            value = 0.375 * np.mean(pairs) - penalty + 0.5 * (0.5 * gain / cases) + 0.125 * np.mean(triplets)
            if is_image:
                order = sorted([*mean[i], mos[i]])
                places = abs(order.index(mean[i, j]) - order.index(mos[i]))
                near = abs(mean[i, j] - mos[i]) < 0.02
                value = (value + (1.0 if near else math.exp(-places / (group + 1)))) / 3
            accuracy[i, j] = value
    return accuracy


@pytest.mark.parametrize("option", ["preresq_r1_release", "preresq_r1_video_release"])
@pytest.mark.parametrize("seed", range(5))
def test_the_releases_are_what_their_formulas_say(load_terms: Load, option: str, seed: int) -> None:
    draw = np.random.default_rng(seed)
    size, group, width = 3 + seed, 3 + seed % 3, find_form(TASKS[option][0]).num_aspects
    mos = draw.uniform(1, 5, size)
    aspects = draw.uniform(1, 5, (size, group, width))
    aspects[0] = 3 + (aspects[0] - 3) / 20  # near-equal sub-scores, so that penalty and margin act
    terms = load_terms(option)
    values = breakdown(terms, aspects_step(mos.tolist(), aspects.tolist()), option)
    expected = released_accuracy(mos, aspects, is_image=width == 5)
    np.testing.assert_allclose(total(terms, values, but="format"), expected, atol=1e-6)
    assert (values["format"] == 1).all()


@pytest.mark.parametrize("option", ["preresq_r1_release", "preresq_r1_video_release"])
def test_the_releases_ask_triplets_one_way(load_terms: Load, option: str) -> None:
    """The hand-worked ties of test_preresq: opinions 2, 3, 3; scores 2, 3, 3 and 4, 3, 4."""
    width = find_form(TASKS[option][0]).num_aspects
    aspects = [[[score] * width for score in row] for row in ((2.0, 4.0), (3.0, 3.0), (3.0, 4.0))]
    values = breakdown(load_terms(option), aspects_step([2.0, 3.0, 3.0], aspects), option)
    np.testing.assert_allclose(values["triplet"], [[1, 2 / 3], [1, 2 / 3], [1, 0]], atol=1e-12)


def test_the_stages_differ_by_the_penalty_alone(load_terms: Load) -> None:
    first, second, plain = (
        {term.name: term for term in load_terms(name)}
        for name in ("preresq_r1_exploration", "preresq_r1_stability", "preresq_r1")
    )
    assert {*first} - {*second} == {"penalty"}
    for name, term in second.items():
        for other in (first[name], plain[name]):
            assert (term.weight, term.function.keywords) == (other.weight, other.function.keywords)  # type: ignore[attr-defined]


def test_only_the_release_pays_more_for_a_larger_error_in_the_wrong_order(load_terms: Load) -> None:
    for option, is_rising in (("preresq_r1_release", True), ("preresq_r1", False)):
        terms = load_terms(option)
        earned = []
        for error in (1.0, 1.5, 2.0):
            step = aspects_step([2.0, 4.0], [[[3 + error] * 5] * 3, [[3 - error / 2] * 5] * 3])
            earned.append(breakdown(terms, step, option)["pairwise"][0, 0])
        assert (earned == sorted(earned)) is is_rising
        assert len({*earned}) == 3
