from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhk.pairs.judge import (
    Emit,
    Filtered,
    Judge,
    Judged,
    SimilarityJudge,
    filter_pairs,
    pair_messages,
    question_digest,
    read_answer,
)
from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.policy_judge import PolicyJudge
from qhk.pairs.records import Pair, strengthened_row
from tests.conftest import build_policy
from tests.pairs.builders import degraded, row


def run(manifest: PairManifest, judge: Judge, *, limit: int | None = None) -> Filtered:
    return filter_pairs(manifest, judge, limit=limit, price=(1.0, 1.0), progress=lambda *_: None)


def test_the_threshold_is_called_what_it_is(degraded_six: PairManifest) -> None:
    likeness = sorted(pair.copy.ssim or 0.0 for pair in degraded_six)
    judge = SimilarityJudge(degraded_six, threshold=likeness[2])
    assert "no model" in judge.name
    done = run(degraded_six, judge)
    assert done.verdicts == {"same": 4, "different": 2} and done.cost == 0.0
    for pair in open_pairs(degraded_six.path):
        assert pair.verdict == ("same" if (pair.copy.ssim or 0.0) >= likeness[2] else "different")


def test_limit_and_resumption(degraded_six: PairManifest) -> None:
    judge = SimilarityJudge(degraded_six, threshold=0.5)
    assert sum(run(degraded_six, judge, limit=2).verdicts.values()) == 2
    rest = run(degraded_six, judge)
    assert rest.before == 2 and sum(rest.verdicts.values()) == 4
    assert run(degraded_six, judge).before == 6


class Stopping:
    """Answers twice, fails once, then the user presses Ctrl-C."""

    name = "stopping"

    def judge(self, pairs: Sequence[Pair], emit: Emit) -> None:
        emit([Judged(pair=pairs[0], version=1, verdict="same", failure="", reply="yes")])
        emit([Judged(pair=pairs[1], version=1, verdict=None, failure="timeout", reply=None)])
        emit([Judged(pair=pairs[2], version=1, verdict="different", failure="", reply="no")])
        raise KeyboardInterrupt


def test_every_word_is_on_disk_before_the_next_question(degraded_six: PairManifest) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(degraded_six, Stopping())
    opened = open_pairs(degraded_six.path)
    assert [pair.verdict for pair in opened] == ["same", None, "different", None, None, None]
    second = list(opened)[1].judgement
    assert second is not None and second.failure == "timeout"


class Overtaken:
    """Shows the first copy while another process strengthens the pair."""

    name = "overtaken"

    def __init__(self, other: PairManifest) -> None:
        self.other = other

    def judge(self, pairs: Sequence[Pair], emit: Emit) -> None:
        version = pairs[0].copy.version
        self.other.append([strengthened_row(pairs[0].group_id, degraded("blur", "noise"))])
        emit([Judged(pair=pairs[0], version=version, verdict="same", failure="", reply="yes")])


def test_a_word_stays_with_the_copy_that_was_shown(tmp_path: Path) -> None:
    manifest = open_pairs(tmp_path / "pairs.jsonl", create=True)
    manifest.append([row(1)])
    filter_pairs(
        manifest,
        Overtaken(open_pairs(manifest.path)),
        limit=None,
        price=(0.0, 0.0),
        progress=lambda *_: None,
    )
    (pair,) = open_pairs(manifest.path)
    assert pair.copy.version == 2 and pair.verdict is None
    assert pair.judgements["overtaken", 1].verdict == "same"


def policy_judge(manifest: PairManifest, **changes: object) -> PolicyJudge:
    values: dict[str, object] = {
        "label": "policy:tiny",
        "question": "Do they look the same?",
        "temperature": 0.0,
        "max_new_tokens": 4,
        "batch_pairs": 4,
        "decode_batch": 8,
        "seed": 0,
    }
    return PolicyJudge(manifest, build_policy(), **values | changes)  # type: ignore[arg-type]


def test_a_local_policy_sees_both_pictures(degraded_six: PairManifest) -> None:
    """The tiny policy was never taught to answer: its words are failures, kept with their replies."""
    judge = policy_judge(degraded_six)
    seen = []
    encode = judge.policy.encoder.encode
    done = run(degraded_six, judge)
    assert sum(done.verdicts.values()) + sum(done.failures.values()) == 6
    assert done.prompt_tokens > 6 * 20 and done.completion_tokens >= 6
    for pair in open_pairs(degraded_six.path):
        word = pair.judgement
        assert word is not None
        record = open_pairs(degraded_six.path).record_at(word.place)
        assert isinstance(record["reply"], str)
        seen.append(record["prompt_tokens"])
    from qhk.pairs.judge import load_pair, pair_messages

    first = next(iter(degraded_six))
    prompt = encode(pair_messages("Do they look the same?"), load_pair(degraded_six, first, version=1))
    assert prompt.image_grid_thw.shape == (2, 3) and prompt.num_tokens == seen[0]
    assert not np.array_equal(*np.split(prompt.pixel_values.numpy(), 2))


def test_batches_of_a_policy_change_no_reply(degraded_six: PairManifest, tmp_path: Path) -> None:
    replies = []
    for batch in (1, 3):
        words: list[Judged] = []
        judge = policy_judge(degraded_six, batch_pairs=batch, temperature=1.0, max_new_tokens=2)
        judge.judge(list(degraded_six)[:3], words.extend)
        replies.append([(word.pair.group_id, word.reply) for word in words])
    assert replies[0] == replies[1] and len({reply for _, reply in replies[0]}) > 1


def test_a_missing_file_is_a_failure_of_its_pair_alone(degraded_six: PairManifest) -> None:
    first, second, *_ = degraded_six
    degraded_six.copy_path(first).unlink()
    Image.new("RGB", (40, 40)).save(degraded_six.copy_path(second), "PNG")
    words: list[Judged] = []
    policy_judge(degraded_six).judge(list(degraded_six), words.extend)
    reasons = {word.pair.group_id: word.failure for word in words}
    assert len(words) == 6
    assert "no such image file" in reasons[first.group_id]
    assert "40x40, its original is 60x48" in reasons[second.group_id]


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
