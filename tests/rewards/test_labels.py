from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhk.rewards.labels import comparison_label, degradation_labels
from qhk.tasks.forms.comparison import CHOICES
from qhk.tasks.forms.degradation import DISTORTION_CLASSES, SEVERITIES
from qhk.types import Completion, Example
from tests.tasks.builders import parse_answer

STRENGTHS = {"class_reward": 0.25, "severity_reward": 0.75}


def example(**labels: str) -> Example:
    return Example(
        id="one",
        dataset="set",
        image=Path("one.png"),
        mos=None,
        mos_native=None,
        higher_is_better=True,
        labels=labels,
    )


def completion(content: str, form: str, rule: str) -> Completion:
    text = f"<think>x</think><answer>{content}</answer>"
    return Completion(
        text=text, answer=parse_answer(text, form=form, rule=rule), num_tokens=1, truncated=False
    )


@pytest.mark.parametrize(
    ("content", "ours", "release"),
    [
        ('{"distortion_class": "blur", "severity": "slight"}', 1.0, 1.0),
        ('{"distortion_class": "blur", "severity": "obvious"}', 0.25, 0.25),
        ('{"distortion_class": "noise", "severity": "slight"}', 0.0, 0.0),
        ('{"severity": "slight", "distortion_class": "blur"}', 1.0, 0.0),
        ('{"distortion_class": "blur", "severity": "mild"}', 0.0, 0.25),
        ('{"distortion_class": "blur"}', 0.0, 0.0),
        ("blur", 0.0, 0.0),
    ],
)
def test_degradation(content: str, ours: float, release: float) -> None:
    truth = example(distortion_class="blur", severity="slight")
    for rule, value in (("json", ours), ("q_insight_release", release)):
        assert degradation_labels(completion(content, "degradation", rule), truth, **STRENGTHS) == value


def test_an_undamaged_image_is_told_by_null() -> None:
    truth = example(distortion_class="null", severity="null")
    content = '{"distortion_class": null, "severity": null}'
    assert degradation_labels(completion(content, "degradation", "json"), truth, **STRENGTHS) == 1.0
    released = completion(content, "degradation", "q_insight_release")
    assert degradation_labels(released, truth, **STRENGTHS) == 0.0
    half = completion('{"distortion_class": null, "severity": "slight"}', "degradation", "json")
    assert degradation_labels(half, truth, **STRENGTHS) == 0.25


@given(
    st.sampled_from(DISTORTION_CLASSES),
    st.sampled_from(SEVERITIES),
    st.sampled_from(DISTORTION_CLASSES),
    st.sampled_from(SEVERITIES),
)
def test_the_severity_counts_only_with_the_class(kind: str, severity: str, told: str, how: str) -> None:
    content = f'{{"distortion_class": "{told}", "severity": "{how}"}}'
    value = degradation_labels(
        completion(content, "degradation", "json"),
        example(distortion_class=kind, severity=severity),
        **STRENGTHS,
    )
    assert value == {(True, True): 1.0, (True, False): 0.25}.get((told == kind, how == severity), 0.0)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("rule", ["choice", "choice_of_two", "q_insight_release"])
def test_comparison(choice: str, rule: str) -> None:
    for told in (*CHOICES, "image a", "both", ""):
        read = told in (CHOICES[:2] if rule == "choice_of_two" else CHOICES)
        value = comparison_label(completion(told, "comparison", rule), example(choice=choice))
        assert value == float(read and told == choice)


def test_an_example_without_the_label_is_named() -> None:
    wrong = completion("Image A", "comparison", "choice")
    message = r"^data: example one of set has no label choice \(it has severity\); choose a data set"
    with pytest.raises(ValueError, match=message):
        comparison_label(wrong, example(severity="slight"))
    with pytest.raises(ValueError, match=r"has no label severity \(it has distortion_class\)"):
        degradation_labels(wrong, example(distortion_class="blur"), **STRENGTHS)
