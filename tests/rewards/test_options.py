"""The options of conf/reward, from the text of completions to what they earn in all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qhk.rewards.term import RewardTerm
from qhk.tasks import find_form
from qhk.tasks.forms.comparison import CHOICES
from qhk.tasks.forms.degradation import DISTORTION_CLASSES, SEVERITIES
from tests.rewards.conftest import REWARDS
from tests.rewards.steps import TASKS, Step, answer, breakdown, example, total
from tests.tasks.builders import parse_answer

Load = Callable[[str], list[RewardTerm]]

BY_PLACE = {"preresq_r1_release", "preresq_r1_video_release"}
"""Options in which the answers sampled at the same place meet."""

PAID_UNREAD = {"graded_format"}
"""Options that pay for single tags and for a length, whatever is read."""


def test_every_option_is_here() -> None:
    assert sorted(TASKS) == sorted(path.stem for path in REWARDS.glob("*.yaml"))


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
        size = find_form(form).num_aspects
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
            if option not in PAID_UNREAD and not parse_answer(text, form=form, rule=rule).parsed:
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
        if name == "triplet" and option in BY_PLACE:
            continue  # its ties count one way, from the image that comes first
        expected = [plain[i][order] for i, order in zip(images, own, strict=True)]
        np.testing.assert_allclose(again[name], np.array(expected), atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("task", "content", "corrected", "released"),
    [
        ("score", '{"rating": 4.6}', (1, 1), (1, 1)),
        ("score", '{"rating": 4.5}', (0, 1), (0, 1)),
        ("score", '{"rating": 5.1}', (0, 1), (1, 1)),  # beyond the scale
        ("score", '{"rating": "4.6"}', (0, 1), (0, 1)),
        ("score", "4.6", (0, 0), (0, 0)),
        ("degradation", '{"distortion_class": "blur", "severity": "obvious"}', (1, 1), (1, 1)),
        ("degradation", '{"distortion_class": "blur", "severity": "slight"}', (0.25, 1), (0.25, 1)),
        ("degradation", '{"severity": "obvious", "distortion_class": "blur"}', (1, 1), (0, 1)),
        ("comparison", "Image A", (1, 1), (1, 1)),
        ("comparison", "Image B", (0, 1), (0, 1)),
        ("comparison", "both", (0, 0), (0, 1)),
    ],
)
@pytest.mark.parametrize("is_inline", [False, True])
def test_q_insight_and_its_corrections(
    load_terms: Load,
    task: str,
    content: str,
    corrected: tuple[float, float],
    released: tuple[float, float],
    is_inline: bool,
) -> None:
    truth = example(4.9, {"distortion_class": "blur", "severity": "obvious", "choice": "Image A"})
    text = answer(content).replace("\n", "") if is_inline else answer(content)
    for option, expected in ((f"q_insight_{task}", corrected), (f"q_insight_{task}_release", released)):
        terms = load_terms(option)
        values = breakdown(terms, Step([truth], [[text]]), option)
        form = 0 if is_inline and option.endswith("_release") else expected[1]  # line breaks are mandatory
        assert [values[term.name].item() for term in terms] == [expected[0], form]
        assert [term.weight for term in terms] == [1.0, 1.0]
