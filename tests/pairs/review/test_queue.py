from __future__ import annotations

import pytest

from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.records import decision_row, judgement_row
from qhk.pairs.review.queue import Queue, Scope, judge_sureness, wanted
from tests.pairs.builders import row


def ids(queue: Queue) -> list[int]:
    return [int(queue.pair(place).group_id[-6:]) for place in range(len(queue))]


def judge(
    manifest: PairManifest, number: int, verdict: str | None, *, by: str = "judge", **more: float
) -> None:
    pair = manifest.pairs[f"group_{number:06d}"]
    failure = "" if verdict else "timeout"
    manifest.append(
        [judgement_row(pair, judge=by, verdict=verdict, reply="", failure=failure, **more)]  # type: ignore[arg-type]
    )


def queue_of(
    manifest: PairManifest, *, scope: Scope = "all", order: str = "manifest", types: tuple[str, ...] = ()
) -> Queue:
    return Queue(manifest, order=order, scope=scope, types=types)  # type: ignore[arg-type]


def test_windows_go_round_and_hold_what_is_wanted(manifest: PairManifest) -> None:
    queue = queue_of(manifest)
    odd = {place for place in range(7) if place % 2}
    keep = lambda pair: int(pair.group_id[-6:]) in odd  # noqa: E731
    assert queue.window(keep, start=2, count=2) == [3, 5]
    assert queue.window(keep, start=4, count=9) == [5, 1, 3]
    assert queue.window(keep, start=99, count=9) == [1, 3, 5]
    assert queue.window(keep, start=0, count=0) == []


def test_shuffled_is_another_order_and_always_the_same(manifest: PairManifest) -> None:
    first, again = (ids(queue_of(manifest, order="shuffled")) for _ in range(2))
    assert first == again != list(range(7)) and sorted(first) == list(range(7))


def test_the_judge_least_sure_of_comes_first(manifest: PairManifest) -> None:
    judge(manifest, 0, "same")
    judge(manifest, 1, "same", confidence=0.9)
    judge(manifest, 2, "same", confidence=0.6)
    judge(manifest, 3, None)
    judge(manifest, 4, "same")
    judge(manifest, 4, "different", by="another")
    judge(manifest, 5, "same", confidence=0.1)
    assert [judge_sureness(manifest, pair) for pair in manifest] == [1.0, 0.9, 0.6, 0.0, 0.0, 0.1, 0.5]
    assert ids(queue_of(manifest, order="judge_least_sure")) == [3, 4, 5, 6, 2, 1, 0]


def test_only_what_waits_for_a_person_is_confirmed(manifest: PairManifest) -> None:
    judge(manifest, 0, "same")
    judge(manifest, 1, "different")
    judge(manifest, 2, "unusable")
    judge(manifest, 3, None)
    assert ids(queue_of(manifest, scope="to_confirm")) == [0, 3, 4, 5, 6]
    assert len(queue_of(manifest)) == 7


def test_types_restrict_and_an_unknown_one_is_refused(manifest: PairManifest) -> None:
    assert ids(queue_of(manifest, types=("noise",))) == [0, 3, 6]
    with pytest.raises(ValueError, match="no pair of type 'haze'; choose from blur, jpeg, noise"):
        queue_of(manifest, types=("haze",))


def test_new_pairs_follow_at_the_end(manifest: PairManifest) -> None:
    queue = queue_of(manifest, order="shuffled", types=("blur",))
    before = ids(queue)
    open_pairs(manifest.path).append([row(50, "blur"), row(51, "noise")])
    manifest.refresh()
    queue.extend()
    queue.extend()
    assert ids(queue) == [*before, 50]
    assert queue.place("group_000050") == len(before) and queue.place("group_000051") is None


def test_what_a_reviewer_asks_to_see(manifest: PairManifest) -> None:
    pairs = list(manifest)
    words = {0: "same", 1: "skip", 2: "unsure", 3: "different"}
    manifest.append([decision_row(pairs[n], reviewer="ann", verdict=word) for n, word in words.items()])  # type: ignore[arg-type]
    manifest.append([decision_row(pairs[n], reviewer="ben", verdict="different") for n in (0, 2, 3)])

    def places(show: str, kind: str = "") -> list[int]:
        def answer(pair):  # type: ignore[no-untyped-def]
            decision = pair.decisions.get(("ann", 1))
            return None if decision is None else decision.answer

        queue = queue_of(manifest)
        return queue.window(wanted(show, kind=kind, answer=answer), start=0, count=99)  # type: ignore[arg-type]

    assert places("todo") == [4, 5, 6]
    assert places("skipped") == [1]
    assert places("unsure") == [2]
    assert places("decided") == [0, 3]
    assert places("disagreements") == [0]
    assert places("all", "blur") == [1, 4]
