"""Accuracies by hand: right, half right, unread, tied, undamaged, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from qhk.evaluation.accuracy import accuracies
from qhk.evaluation.predictions import Prediction
from qhk.evaluation.results import Measure
from qhk.tasks import find_form

Words = tuple[str, str]
BLUR: Words = ("blur", "slight")
CLEAN: Words = ("null", "null")


def labels(words: Words) -> dict[str, str]:
    return dict(zip(find_form("degradation").labels, words, strict=True))


def image(truth: Words, *answers: Words | None) -> Prediction:
    """A damaged image's truth with what each sample said of it; None was not read."""
    return Prediction(
        id="x",
        mos=None,
        score=None,
        clipped=None,
        samples=(),
        out_of_range=0,
        texts=None,
        labels=labels(truth),
        answers=tuple(None if answer is None else labels(answer) for answer in answers),
    )


def choice(truth: str, *answers: str | None) -> Prediction:
    values = vars(image(BLUR)) | {"labels": {"choice": truth}}
    said = tuple(None if answer is None else {"choice": answer} for answer in answers)
    return Prediction(**(values | {"answers": said}))


def of(*predictions: Prediction, form: str = "degradation", resamples: int = 0) -> Mapping[str, Measure]:
    return accuracies(predictions, find_form(form), num_resamples=resamples, confidence=0.9, seed=0)


def values(*predictions: Prediction, form: str = "degradation") -> dict[str, float]:
    return {name: measure.value for name, measure in of(*predictions, form=form).items()}


def test_by_hand() -> None:
    assert values(
        image(BLUR, BLUR),  # all right
        image(BLUR, ("blur", "serious")),  # the class alone
        image(BLUR, ("noise", "slight")),  # the severity alone
        image(("noise", "serious"), BLUR),  # nothing
        image(CLEAN, CLEAN),  # right, and without a level to be right about
    ) == {
        "accuracy": 2 / 5,
        "distortion_class_accuracy": 3 / 5,
        "severity_accuracy": 2 / 4,
    }


def test_an_undamaged_image_has_no_level_whatever_is_said_of_it() -> None:
    assert values(image(BLUR, BLUR), image(CLEAN, BLUR))["severity_accuracy"] == 1.0
    assert values(image(BLUR, CLEAN))["severity_accuracy"] == 0.0
    assert math.isnan(values(image(CLEAN, CLEAN))["severity_accuracy"])


def test_what_was_not_read_is_wrong_and_counted() -> None:
    assert values(image(BLUR, None), image(BLUR, BLUR), image(CLEAN, None)) == {
        "accuracy": 1 / 3,
        "distortion_class_accuracy": 1 / 3,
        "severity_accuracy": 1 / 2,
    }
    assert set(values(image(BLUR, None, None)).values()) == {0.0}


def test_the_most_frequent_answer_counts_and_of_a_tie_the_first_said() -> None:
    other = ("noise", "slight")
    assert values(image(BLUR, other, BLUR, BLUR))["accuracy"] == 1.0
    assert values(image(BLUR, BLUR, other))["accuracy"] == 1.0
    assert values(image(BLUR, other, BLUR))["accuracy"] == 0.0
    assert values(image(BLUR, None, None, None, BLUR))["accuracy"] == 1.0
    # Whole answers are counted: the class that most samples name does not win by itself.
    split = [("blur", "slight"), ("blur", "serious"), other, other]
    assert values(image(BLUR, *split))["distortion_class_accuracy"] == 0.0


def test_a_single_label_has_one_accuracy() -> None:
    read = values(
        choice("Image A", "Image A"), choice("Similar", "Image A"), choice("Image B", None), form="comparison"
    )
    assert read == {"accuracy": pytest.approx(1 / 3)}


def test_nothing_to_measure_is_not_a_number() -> None:
    for measure in of(resamples=50).values():
        assert all(math.isnan(value) for value in (measure.value, measure.low, measure.high))


def test_intervals_hold_their_value_and_shrink_to_it_where_nothing_varies() -> None:
    mixed = of(*[image(BLUR, BLUR)] * 12, *[image(BLUR, ("blur", "serious"))] * 8, resamples=400)
    assert (mixed["accuracy"].value, mixed["distortion_class_accuracy"].value) == (0.6, 1.0)
    assert mixed["distortion_class_accuracy"] == Measure(value=1.0, low=1.0, high=1.0)
    # A share of 0.6 over 20 images has a standard error of 0.11: 90% lie within about 0.18.
    assert mixed["accuracy"].low == pytest.approx(0.42, abs=0.06)
    assert mixed["accuracy"].high == pytest.approx(0.78, abs=0.06)
    assert mixed["severity_accuracy"] == mixed["accuracy"]
    without = of(image(BLUR, BLUR), resamples=0)["accuracy"]
    assert without.value == 1.0 and math.isnan(without.low) and math.isnan(without.high)
