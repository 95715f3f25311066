from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.records import ANSWERS, Answer
from qhk.pairs.review.reviews import Entry, Reviews
from tests.pairs.builders import second


def decide(
    reviews: Reviews, number: int, answer: Answer, *, by: str = "ann", key: str | None = None
) -> Entry:
    return reviews.decide(
        reviewer=by,
        group_id=f"group_{number:06d}",
        version=1,
        answer=answer,
        key=key or f"{by}-{number}-{answer}",
        seconds=1.5,
    )


def said(reviews: Reviews, number: int, *, by: str = "ann") -> Answer | None:
    return reviews.answer(reviews.manifest.pairs[f"group_{number:06d}"], by)


def decisions(path: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["kind"] == "decision"]


def test_an_answer_is_in_the_file_when_the_call_returns(manifest: PairManifest) -> None:
    reviews = Reviews(manifest)
    decide(reviews, 2, "same", key="k" * 8)
    (row,) = decisions(manifest.path)
    assert (row["group_id"], row["reviewer"], row["verdict"]) == ("group_000002", "ann", "same")
    assert (row["version"], row["key"], row["seconds"]) == (1, "k" * 8, 1.5)


def test_a_repeated_request_is_done_once_also_after_a_restart(manifest: PairManifest) -> None:
    reviews = Reviews(manifest)
    first = decide(reviews, 0, "same", key="only once")
    assert decide(reviews, 0, "same", key="only once") == first
    later = Reviews(open_pairs(manifest.path))
    assert decide(later, 0, "same", key="only once") == first
    assert len(decisions(manifest.path)) == 1
    assert reviews.counts("ann") == later.counts("ann") == {"same": 1}


def test_undo_goes_back_answer_by_answer_also_after_a_restart(manifest: PairManifest) -> None:
    reviews = Reviews(manifest)
    decide(reviews, 0, "same")
    decide(reviews, 1, "skip")
    decide(reviews, 0, "different")
    decide(reviews, 5, "unsure", by="ben")
    reviews.undo(reviewer="ann", key="undo one")
    assert said(reviews, 0) == "same"
    reviews = Reviews(open_pairs(manifest.path))
    last = reviews.undo(reviewer="ann", key="undo two")
    assert last is not None and last.group_id == "group_000001" and said(reviews, 1) is None
    reviews.undo(reviewer="ann", key="undo three")
    assert said(reviews, 0) is None
    assert reviews.undo(reviewer="ann", key="undo four") is None
    assert said(reviews, 5, by="ben") == "unsure"
    assert not +reviews.counts("ann")


def test_a_repeated_undo_takes_back_one_answer(manifest: PairManifest) -> None:
    reviews = Reviews(manifest)
    decide(reviews, 0, "same")
    decide(reviews, 1, "same")
    assert reviews.undo(reviewer="ann", key="undo once") == reviews.undo(reviewer="ann", key="undo once")
    assert (said(reviews, 0), said(reviews, 1)) == ("same", None)


def test_an_unknown_pair_or_version_is_refused(manifest: PairManifest) -> None:
    reviews = Reviews(manifest)
    with pytest.raises(ValueError, match="group_000099: the manifest has no version 1"):
        decide(reviews, 99, "same")
    assert decisions(manifest.path) == []


def test_an_answer_stays_with_the_version_that_was_seen(manifest: PairManifest) -> None:
    reviews = Reviews(manifest)
    decide(reviews, 3, "same")
    open_pairs(manifest.path).append([second(3, "noise", "blur")])
    reviews.refresh()
    assert said(reviews, 3) is None and not +reviews.counts("ann")
    decide(reviews, 3, "different", key="late but of version 1")
    assert said(reviews, 3) is None and not +reviews.counts("ann")
    assert not manifest.pairs["group_000003"].votes


def test_pace_leaves_breaks_out(manifest: PairManifest, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(
        [f"2026-01-01T00:{m:02d}:{s:02d}.000+00:00" for m, s in ((0, 0), (0, 4), (0, 8), (30, 0), (30, 4))]
    )
    monkeypatch.setattr("qhk.pairs.manifest._now", lambda: next(times))
    reviews = Reviews(manifest)
    for number in range(3):
        decide(reviews, number, "same")
    assert reviews.pace("ann") is None
    for number in (3, 4):
        decide(reviews, number, "same")
    assert reviews.pace("ann") == pytest.approx(15)


steps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 3), st.sampled_from(ANSWERS), st.sampled_from(["ann", "ben"])),
        st.sampled_from(["ann", "ben"]),
        st.just(None),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_any_sequence_equals_a_plain_stack(
    pairs: Callable[[int], Path], tmp_path: Path, steps: list[object]
) -> None:
    """Answers, undos and restarts against stacks of (pair, answer before)."""
    path = tmp_path / "päirs 画" / "pairs.jsonl"
    if not path.exists():
        pairs(4)
    path.write_bytes(
        b"".join(line for line in path.read_bytes().splitlines(True) if b'"decision"' not in line)
    )
    reviews = Reviews(open_pairs(path))
    state: dict[tuple[str, int], Answer | None] = {}
    stacks: dict[str, list[tuple[int, Answer | None]]] = {"ann": [], "ben": []}
    for number, step in enumerate(steps):
        if step is None:
            reviews = Reviews(open_pairs(path))
        elif isinstance(step, str):
            reviews.undo(reviewer=step, key=f"undo number {number}")
            if stacks[step]:
                place, before = stacks[step].pop()
                state[step, place] = before
        else:
            place, answer, name = step  # type: ignore[misc]
            decide(reviews, place, answer, by=name, key=f"decide number {number}")
            stacks[name].append((place, state.get((name, place))))
            state[name, place] = answer
    for name in stacks:
        expected = [state.get((name, place)) for place in range(4)]
        assert [said(reviews, place, by=name) for place in range(4)] == expected
        kept = [answer for answer in expected if answer is not None]
        assert +reviews.counts(name) == {answer: kept.count(answer) for answer in kept}
