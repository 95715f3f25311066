from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from qhk.data.image import load_image
from qhk.data.seeds import stream_generator
from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.operations import apply_operation
from qhk.pairs.records import Pair, Verdict, decision_row, judgement_row
from qhk.pairs.strengthen import Strengthened, awaits_review, strengthen_pairs
from tests.pairs.conftest import a_plan, contents, no_progress

SEED = 1
"""Of the second degradations: one of the three pairs gets noise."""

STAGE_4 = {"noise": 65.0, "blur": 4.0, "jpeg": 5.0, "darken": 0.5}


def judged(manifest: PairManifest, verdicts: Mapping[int, Verdict | None]) -> None:
    pairs = list(manifest)
    for number, verdict in verdicts.items():
        failure = "" if verdict else "timeout"
        row = judgement_row(pairs[number], judge="j", verdict=verdict, reply=None, failure=failure)
        manifest.append([row])


def decided(manifest: PairManifest, pair: Pair, reviewer: str, answer: Verdict | None) -> None:
    manifest.append([decision_row(pair, reviewer=reviewer, verdict=answer)])


def run(manifest: PairManifest, **changes: Any) -> Strengthened:
    plan = a_plan(strengths=STAGE_4, level="stage_4", **changes.pop("plan", {}))
    values = {"human_review": "skipped", "max_degradations": 2, "workers": 0} | changes
    return strengthen_pairs(manifest, plan=plan, progress=no_progress, **values)  # type: ignore[arg-type]


def test_a_second_different_degradation_in_a_new_file(degraded_six: PairManifest) -> None:
    judged(degraded_six, {0: "same", 1: "same", 2: "same", 3: "different", 4: None})
    plan = {"kinds": ("noise", "darken"), "seed": SEED}
    before = contents(degraded_six.folder / "copies")
    originals = {pair.group_id: degraded_six.source_path(pair).read_bytes() for pair in degraded_six}
    assert run(degraded_six, plan=plan) == Strengthened(made=3, failed=0, waiting=0, spent=0)
    after = contents(degraded_six.folder / "copies")
    assert before.items() <= after.items() and len(after) == len(before) + 3, "nothing was overwritten"
    opened = open_pairs(degraded_six.path)
    assert [pair.copy.version for pair in opened] == [2, 2, 2, 1, 1, 1]
    seconds = [pair.copy.degradations[1].type for pair in list(opened)[:3]]
    assert "noise" in seconds, "one of them shows which stream it was drawn from"
    for pair in list(opened)[:3]:
        assert opened.source_path(pair).read_bytes() == originals[pair.group_id]
        first, second = pair.copy.degradations
        assert first == pair.copies[0].degradations[0] and second.type != first.type
        assert pair.copy.type == f"{first.type}+{second.type}"
        assert second.level == "stage_4" and second.strength == STAGE_4[second.type]
        start = load_image(opened.copy_path(pair, version=1))
        rng = stream_generator(SEED, "pair pixels", pair.group_id, 2)
        expected = apply_operation(start, kind=second.type, strength=second.strength, rng=rng)
        assert load_image(opened.copy_path(pair)).tobytes() == expected.tobytes()


def test_a_rerun_never_adds_a_third_unless_asked(degraded_six: PairManifest) -> None:
    """Release defect: a rerun degraded what was degraded twice already, since 'a+b' matched no type."""
    judged(degraded_six, {0: "same", 1: "same"})
    run(degraded_six)
    before = contents(degraded_six.folder / "copies")
    assert run(degraded_six) == Strengthened(made=0, failed=0, waiting=0, spent=0)
    judged(degraded_six, {0: "same"})
    assert run(degraded_six) == Strengthened(made=0, failed=0, waiting=0, spent=1)
    assert contents(degraded_six.folder / "copies") == before
    assert run(degraded_six, max_degradations=3).made == 1
    pair = next(iter(open_pairs(degraded_six.path)))
    assert pair.copy.version == 3 and len(set(pair.copy.type.split("+"))) == 3


def test_people_come_before_the_judge(degraded_six: PairManifest) -> None:
    judged(degraded_six, {0: "same", 1: "same", 2: "different", 3: "same", 4: "same"})
    pairs = list(degraded_six)
    decided(degraded_six, pairs[0], "ann", "same")
    decided(degraded_six, pairs[1], "ann", "different")
    decided(degraded_six, pairs[2], "ann", "same")
    decided(degraded_six, pairs[3], "ann", "same")
    decided(degraded_six, pairs[3], "bo", "different")
    done = run(degraded_six, human_review="required")
    assert [pair.copy.version for pair in degraded_six] == [2, 1, 2, 1, 1, 1]
    assert done == Strengthened(made=2, failed=0, waiting=1, spent=0), "number 4 waits for a person"


def test_skipping_people_is_never_silent(degraded_six: PairManifest) -> None:
    judged(degraded_six, {0: "same"})
    pair = next(iter(degraded_six))
    assert awaits_review(pair, "required") and not awaits_review(pair, "skipped")
    assert run(degraded_six, human_review="required") == Strengthened(made=0, failed=0, waiting=1, spent=0)


def test_other_values_need_another_manifest(degraded_six: PairManifest) -> None:
    judged(degraded_six, {0: "same"})
    run(degraded_six)
    with pytest.raises(ValueError, match="pairs.strengthen: .* was begun with seed 0, now 1"):
        run(degraded_six, plan={"seed": 1})


def test_a_copy_that_cannot_be_read_is_a_failure(degraded_six: PairManifest) -> None:
    judged(degraded_six, {0: "same", 1: "same"})
    first = next(iter(degraded_six))
    degraded_six.copy_path(first).unlink()
    assert run(degraded_six) == Strengthened(made=1, failed=1, waiting=0, spent=0)
    rows = [json.loads(line) for line in degraded_six.path.read_text().splitlines()]
    assert [row["item"] for row in rows if row["kind"] == "failure"] == [first.group_id]
