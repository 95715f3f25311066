"""A watched answer is like any other, and notes what of it is asked for."""

from __future__ import annotations

import copy
from dataclasses import asdict, replace

from qhk.rewards.watched import watch
from qhk.types import Answer, Completion

ANSWER = Answer(score=None, labels={"choice": "Image A"})


def test_fields_that_are_lacking_are_noted() -> None:
    watched = watch(ANSWER)
    assert watched.only_lacking() == []
    assert watched.score is None and watched.only_lacking() == ["score"]
    assert watched.labels["choice"] == "Image A" and watched.only_lacking() == []


def test_it_can_be_taken_apart_and_copied() -> None:
    completion = Completion(text="", answer=watch(ANSWER), num_tokens=1, truncated=False)
    plain = asdict(replace(completion, answer=ANSWER))
    assert asdict(completion) == plain
    assert asdict(completion.answer)["labels"].get("choice") == "Image A"
    assert copy.deepcopy(completion) == completion
    assert replace(watch(ANSWER), score=2.0).score == 2.0


def test_it_equals_a_plain_answer_that_says_the_same() -> None:
    assert watch(ANSWER) == ANSWER and watch(ANSWER) == watch(ANSWER)
    assert watch(ANSWER) != replace(ANSWER, score=1.0)
    assert Answer(score=1.0) != watch(ANSWER) and watch(ANSWER) != "Image A"
