"""The options of conf/reward, from the text of completions to what they earn in all."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qhk.rewards.answer import parse_answer
from qhk.rewards.batch import ScoredGroup
from qhk.rewards.compose import batch_values, completion_value
from qhk.rewards.term import CompletionTerm, RewardTerm
from qhk.types import CHOICES, DISTORTION_CLASSES, NUM_ASPECTS, SEVERITIES, Completion, Example
from tests.rewards.conftest import REWARDS

Load = Callable[[str], list[RewardTerm]]
Matrix = NDArray[np.float64]

TASKS = {
    "q_hawkeye": ("score", "strict"),
    "q_hawkeye_paper": ("score", "strict"),
    "q_hawkeye_release": ("score", "q_hawkeye_release"),
    "q_hawkeye_tiny": ("score", "strict"),
    "q_insight_score": ("score", "json"),
    "q_insight_score_release": ("score", "q_insight_release"),
    "q_insight_degradation": ("degradation", "json"),
    "q_insight_degradation_release": ("degradation", "q_insight_release"),
    "q_insight_comparison": ("comparison", "choice"),
    "q_insight_comparison_release": ("comparison", "q_insight_release"),
    "visualquality_r1": ("score", "strict"),
    "visualquality_r1_release": ("score", "visualquality_r1_release"),
    "preresq_r1_score": ("score", "strict"),
    "preresq_r1": ("multi_aspect", "lines"),
    "preresq_r1_exploration": ("multi_aspect", "lines"),
    "preresq_r1_stability": ("multi_aspect", "lines"),
    "preresq_r1_release": ("multi_aspect", "preresq_r1_release"),
    "preresq_r1_video": ("video", "lines"),
    "preresq_r1_video_release": ("video", "preresq_r1_release"),
}
"""Option -> form of the task and rule of the parser that it goes with."""

BY_PLACE = {"preresq_r1_release", "preresq_r1_video_release"}
"""Options in which the answers sampled at the same place meet."""


@dataclass(frozen=True)
class Step:
    """What a step sampled: the examples, and the texts of each one's answers."""

    examples: Sequence[Example]
    texts: Sequence[Sequence[str]]


def example(mos: float, labels: Mapping[str, str], dataset: str = "one") -> Example:
    return Example(
        id=f"{mos}",
        dataset=dataset,
        image=Path("one.png"),
        mos=mos,
        mos_native=mos,
        higher_is_better=True,
        labels=labels,
    )


def answer(content: str) -> str:
    return f"<think>\nx\n</think>\n<answer>\n{content}\n</answer>"


def breakdown(terms: Sequence[RewardTerm], step: Step, option: str) -> dict[str, Matrix]:
    """What every term gives, before its weight: (B, G)."""
    form, rule = TASKS[option]
    groups, completions = [], []
    for source, texts in zip(step.examples, step.texts, strict=True):
        answers = [parse_answer(text, form=form, rule=rule) for text in texts]
        completions.append(
            [
                Completion(text=text, answer=read, num_tokens=1, truncated=False)
                for text, read in zip(texts, answers, strict=True)
            ]
        )
        scores, aspects = tuple(a.score for a in answers), tuple(a.aspects for a in answers)
        groups.append(
            ScoredGroup(
                id=source.id, dataset=source.dataset, mos=source.opinion, scores=scores, aspects=aspects
            )
        )
    values = {}
    for term in terms:
        if isinstance(term, CompletionTerm):
            rows = [
                [completion_value(term, one, source) for one in row]
                for source, row in zip(step.examples, completions, strict=True)
            ]
        else:
            rows = batch_values(term, groups)
        values[term.name] = np.array(rows)
    return values


def total(terms: Sequence[RewardTerm], values: Mapping[str, Matrix], *, but: str = "") -> Matrix:
    weighted = [term.weight * values[term.name] for term in terms if term.name != but]
    return np.sum(weighted, axis=0)  # type: ignore[no-any-return]


def test_every_option_is_here() -> None:
    assert sorted(TASKS) == sorted(path.stem for path in REWARDS.glob("*.yaml"))


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


def test_the_release_for_scores_gives_the_published_fidelity(load_terms: Load) -> None:
    scores = [(3.0, 3.2, 3.4), (2.0, 2.5, 2.1), (4.0, 3.1, 3.6)]
    step = Step(
        [example(mos, {}) for mos in (3.0, 2.2, 3.0)], [[answer(str(s)) for s in row] for row in scores]
    )
    terms = load_terms("visualquality_r1_release")
    expected = [
        [0.954336, 0.979753, 0.995991],
        [1.000622, 0.991437, 1.000258],
        [0.925544, 0.988113, 0.975597],
    ]
    values = breakdown(terms, step, "visualquality_r1_release")
    np.testing.assert_allclose(values["fidelity"], expected, atol=1e-6)
    np.testing.assert_allclose(total(terms, values), np.array(expected) + 1, atol=1e-6)


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
    size, group, width = 3 + seed, 3 + seed % 3, NUM_ASPECTS[TASKS[option][0]]
    mos = draw.uniform(1, 5, size)
    aspects = draw.uniform(1, 5, (size, group, width))
    aspects[0] = 3 + (aspects[0] - 3) / 20  # near-equal sub-scores, so that penalty and margin act
    terms = load_terms(option)
    values = breakdown(terms, aspects_step(mos.tolist(), aspects.tolist()), option)
    expected = released_accuracy(mos, aspects, is_image=width == 5)
    np.testing.assert_allclose(total(terms, values, but="format"), expected, atol=1e-6)
    assert (values["format"] == 1).all()


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


NUMBERS = st.integers(4, 20).map(lambda value: value / 4)


def contents(option: str) -> st.SearchStrategy[str]:
    """Answers that the option's rule reads, and some that it does not."""
    form, rule = TASKS[option]
    if form == "degradation":
        words = st.tuples(st.sampled_from(DISTORTION_CLASSES), st.sampled_from(SEVERITIES))
        read = words.map(lambda pair: json.dumps({"distortion_class": pair[0], "severity": pair[1]}))
    elif form == "comparison":
        read = st.sampled_from(CHOICES)
    elif form == "score":
        is_object = rule in ("json", "q_insight_release")
        read = NUMBERS.map(lambda score: json.dumps({"rating": score}) if is_object else str(score))
    else:
        size = NUM_ASPECTS[form]
        rows = st.lists(NUMBERS, min_size=size, max_size=size)
        read = rows.map(lambda row: "\n".join(map(str, row)))
    return st.one_of(read, read, st.sampled_from(["", "fair", "{}"]))


def steps(option: str) -> st.SearchStrategy[Step]:
    """From one image with one answer to five with five each, often tied, of two data sets."""
    labels = st.fixed_dictionaries(
        {
            "distortion_class": st.sampled_from(DISTORTION_CLASSES),
            "severity": st.sampled_from(SEVERITIES),
            "choice": st.sampled_from(CHOICES),
        }
    )
    sources = st.builds(
        example, st.sampled_from([1.0, 2.0, 2.5, 4.25]), labels, st.sampled_from(["one", "two"])
    )
    return st.integers(1, 5).flatmap(
        lambda size: st.lists(
            st.tuples(sources, st.lists(contents(option).map(answer), min_size=size, max_size=size)),
            min_size=1,
            max_size=5,
        ).map(lambda pairs: Step([source for source, _ in pairs], [texts for _, texts in pairs]))
    )


@pytest.mark.parametrize("option", sorted(TASKS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_step_earns_finite_rewards_in_any_order(
    option: str, load_terms: Load, data: st.DataObject
) -> None:
    terms, step = load_terms(option), data.draw(steps(option))
    values = breakdown(terms, step, option)
    form, rule = TASKS[option]
    for texts, earned in zip(step.texts, total(terms, values), strict=True):
        assert np.isfinite(earned).all()
        for text, value in zip(texts, earned, strict=True):
            if not parse_answer(text, form=form, rule=rule).parsed:
                # Nothing for what was not read, but for a form that is asked for apart from it ({}).
                assert value <= (1.0 if "{}" in text or rule.endswith("_release") else 0.0)
    images = data.draw(st.permutations(range(len(step.examples))))
    size = len(step.texts[0])
    one = data.draw(st.permutations(range(size)))
    own = [one if option in BY_PLACE else data.draw(st.permutations(range(size))) for _ in images]
    moved = Step(
        [replace(step.examples[i], id=f"moved {i}") for i in images],
        [[step.texts[i][place] for place in order] for i, order in zip(images, own, strict=True)],
    )
    again = breakdown(terms, moved, option)
    for name, plain in values.items():
        expected = [plain[i][order] for i, order in zip(images, own, strict=True)]
        np.testing.assert_allclose(again[name], np.array(expected), atol=1e-12, err_msg=name)
