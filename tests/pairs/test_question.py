from __future__ import annotations

import pytest

from qhk.pairs.question import pair_messages, question_digest, read_answer


@pytest.mark.parametrize(
    ("text", "verdict", "failure"),
    [
        ("yes", "same", ""),
        (" Yes.\n", "same", ""),
        ("**No**, the second is blurred", "different", ""),
        ("<think>no?</think><answer>Yes</answer>", "same", ""),
        ("<answer>yes</answer> wait <answer>no</answer>", "different", ""),
        ("yes or no", None, "neither yes nor no"),
        ("nothing to see", None, "neither yes nor no"),
        ("yesterday", None, "neither yes nor no"),
        ("They look the same", None, "neither yes nor no"),
        ("I am sorry, I cannot compare images", None, "refused"),
        ("", None, "empty reply"),
        ("42 !", None, "empty reply"),
    ],
)
def test_answers(text: str, verdict: str | None, failure: str) -> None:
    assert read_answer(text) == (verdict, failure)


def test_the_question_comes_after_both_pictures() -> None:
    (turn,) = pair_messages("Same?")
    assert [part["type"] for part in turn["content"]] == ["image", "image", "text"]


def test_a_judge_asked_otherwise_has_another_name() -> None:
    digests = {question_digest("a", t=0.0), question_digest("b", t=0.0), question_digest("a", t=0.3)}
    assert len(digests) == 3 and question_digest("a", t=0.0) in digests
