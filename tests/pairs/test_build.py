from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from qhk.data.twin import attach_twins, make_twin
from qhk.errors import UserError
from qhk.pairs import training_set
from qhk.pairs.build import DATASET, Built, build_set, count_reasons, select_pairs
from qhk.pairs.degrade import degrade_examples
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import decision_row, failure_row
from qhk.pairs.training_set import read_rows, unpack_set, verify_set
from tests.pairs.conftest import STAGE_1, Pictures, a_plan, contents, no_progress
from tests.pairs.test_strengthen import judged, run


def build(manifest: PairManifest, folder: Path, **changes: Any) -> Built:
    values = {"human_review": "skipped", "unjudged": "keep_strengthened"} | changes
    return build_set(manifest, folder, **values)  # type: ignore[arg-type]


@pytest.fixture
def mixed(degraded_six: PairManifest) -> PairManifest:
    """0, 1: strengthened, 0 still alike; 2, 3: visible; 4: the judge failed; 5: not judged."""
    judged(degraded_six, {0: "same", 1: "same", 2: "different", 3: "different", 4: None})
    run(degraded_six)
    judged(degraded_six, {0: "same"})
    degraded_six.append([failure_row(step="degrade", item="set/bad.jpg", reason="bad.jpg: truncated")])
    return degraded_six


def test_kept_and_dropped_make_the_whole(mixed: PairManifest, tmp_path: Path) -> None:
    """Release defect: rows without a response were skipped, so that the set was empty and nobody was told."""
    built = build(mixed, tmp_path / "set")
    assert [pair.group_id for pair in built.selection.kept] == [list(mixed.pairs)[n] for n in (1, 2, 3)]
    assert count_reasons(built.selection.dropped) == {
        ("strengthen", "still looks the same"): 1,
        ("filter", "the judge failed"): 1,
        ("filter", "not judged"): 1,
        ("degrade", "no copy could be made"): 1,
    }
    with (tmp_path / "set" / "dropped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and len(rows) + 3 == len(mixed) + 1
    assert {row["example_id"] for row in rows} == {"000.png", "004.png", "005.png", "bad.jpg"}


def test_rows_hold_both_images_and_every_field(mixed: PairManifest, tmp_path: Path) -> None:
    """Release defect: only ``image`` was written, so that the perception loss was silently off."""
    build(mixed, tmp_path / "set")
    built = load_from_disk(str(tmp_path / "set" / "dataset"))
    assert len(built) == 3
    for row, number in zip(built, (1, 2, 3), strict=True):
        pair = list(mixed)[number]
        assert row["image_orig"].size == row["image_deg"].size == (60, 48)
        assert row["image_orig"].tobytes() != row["image_deg"].tobytes()
        assert row["score"] == pair.source.mos and row["score_native"] == pair.source.mos_native
        assert row["group_id"] == pair.group_id and row["degradation_type"] == pair.copy.type
        assert row["second_degradation"] == (pair.copy.degradations[1].type if number == 1 else None)
        assert row["strengths"] == [step.strength for step in pair.copy.degradations]
        assert json.loads(row["labels"]) == {"severity": "mild", "level": 2.0}
        assert row["higher_is_better"] is True and row["ssim"] == pair.copy.ssim
    for row, number in zip(read_rows(tmp_path / "set" / "dataset"), (1, 2, 3), strict=True):
        pair = list(mixed)[number]
        assert row["image_orig"]["bytes"] == mixed.source_path(pair).read_bytes()
        assert row["image_deg"]["bytes"] == mixed.copy_path(pair).read_bytes()


def test_training_reads_what_build_writes(mixed: PairManifest, tmp_path: Path, pictures: Pictures) -> None:
    build(mixed, tmp_path / "set")
    shutil.move(tmp_path / "set", tmp_path / "copy")
    shutil.move(tmp_path / "copy", tmp_path / "set")
    examples, twins = pictures(6), tmp_path / "set" / "twins.jsonl"
    with pytest.raises(ValueError, match=r"no twin for '000.png' \(3 of 6 .*twin.missing=leave_out"):
        attach_twins(examples, twins, missing="refuse")
    paired = attach_twins(examples, twins, missing="leave_out")
    assert [one.id for one in paired] == ["001.png", "002.png", "003.png"]
    pair = list(mixed)[2]
    assert paired[1].twin is not None and paired[1].twin.resolve() == mixed.copy_path(pair).resolve()
    from qhk.data.image import load_image

    twin = make_twin(
        paired[1], load_image(paired[1].image), kinds=["blur"], strengths=STAGE_1, seed=0, epoch=None
    )
    assert twin.tobytes() == load_image(mixed.copy_path(pair)).tobytes()
    with pytest.raises(ValueError, match="manifest of pairs: run qhk data build"):
        attach_twins(examples, mixed.path, missing="refuse")


def test_unpacking_returns_examples_with_twins(mixed: PairManifest, tmp_path: Path) -> None:
    build(mixed, tmp_path / "set")
    examples = unpack_set(tmp_path / "set" / "dataset", images=tmp_path / "images")
    for one, number in zip(examples, (1, 2, 3), strict=True):
        pair = list(mixed)[number]
        assert one.image.read_bytes() == mixed.source_path(pair).read_bytes()
        assert one.twin is not None and one.twin.read_bytes() == mixed.copy_path(pair).read_bytes()
        assert (one.id, one.dataset, one.mos, one.mos_native, one.mos_std, one.reference) == (
            pair.source.example_id,
            "set",
            pair.source.mos,
            pair.source.mos_native,
            0.5,
            "content 7",
        )
        assert one.labels == {"severity": "mild", "level": 2.0}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*")}
    assert unpack_set(tmp_path / "set" / "dataset", images=tmp_path / "images") == examples
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*")} == before


def test_people_who_have_not_looked_keep_pairs_out(degraded_six: PairManifest) -> None:
    """Release defect: rows never reviewed counted as kept."""
    judged(degraded_six, {0: "same", 1: "same", 2: "same", 3: "different", 4: "same", 5: "different"})
    pairs = list(degraded_six)
    for number, reviewer, answer in (
        (1, "ann", "different"),
        (2, "ann", "same"),
        (2, "bo", "different"),
        (4, "ann", "unusable"),
        (5, "ann", "unusable"),
    ):
        degraded_six.append([decision_row(pairs[number], reviewer=reviewer, verdict=answer)])  # type: ignore[arg-type]
    chosen = select_pairs(degraded_six, human_review="required", unjudged="keep")
    assert [pair.group_id for pair in chosen.kept] == [pairs[1].group_id, pairs[3].group_id]
    assert {item.example_id: item.reason for item in chosen.dropped} == {
        "000.png": "looks the same to the judge, not reviewed by a person",
        "002.png": "reviewers disagree",
        "004.png": "unusable",
        "005.png": "unusable",
    }
    skipped = select_pairs(degraded_six, human_review="skipped", unjudged="keep")
    reasons = {item.example_id: item.reason for item in skipped.dropped}
    assert reasons["000.png"] == "looks the same, not strengthened"


@pytest.mark.parametrize(("unjudged", "kept"), [("drop", 2), ("keep_strengthened", 3), ("keep", 5)])
def test_pairs_without_an_answer_follow_the_setting(mixed: PairManifest, unjudged: str, kept: int) -> None:
    chosen = select_pairs(mixed, human_review="skipped", unjudged=unjudged)  # type: ignore[arg-type]
    assert len(chosen.kept) == kept and len(chosen.kept) + len(chosen.dropped) == 7


def test_changed_and_missing_files_are_listed(mixed: PairManifest, tmp_path: Path) -> None:
    pairs = list(mixed)
    mixed.copy_path(pairs[2]).write_bytes(b"other")
    mixed.source_path(pairs[3]).unlink()
    built = build(mixed, tmp_path / "set")
    reasons = [item.reason for item in built.selection.dropped if item.step == "build"]
    assert len(built.selection.kept) == 1 and len(reasons) == 2
    assert reasons[0].startswith("the copy changed on disk") and reasons[1].startswith(
        "the original is missing"
    )


def test_nothing_is_overwritten(mixed: PairManifest, tmp_path: Path) -> None:
    """Release defect: the output folder was deleted without asking."""
    folder = tmp_path / "set"
    build(mixed, folder)
    before = contents(folder)
    assert build(mixed, folder).before is True
    report = folder / "report.json"
    report.write_text(report.read_text().replace('"steps"', '"stages"'))  # as earlier versions wrote it
    assert build(mixed, folder).before is True
    report.write_text(report.read_text().replace('"stages"', '"steps"'))
    with pytest.raises(ValueError, match="holds a set built otherwise already: replace it with fresh=true"):
        build(mixed, folder, unjudged="keep")
    judged(mixed, {5: "different"})
    with pytest.raises(ValueError, match="holds a set built otherwise already"):
        build(mixed, folder)
    assert contents(folder) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    for fresh in (False, True):
        with pytest.raises(ValueError, match="holds something else already .thesis.txt.: give another"):
            build(mixed, tmp_path / "mine", fresh=fresh)
    assert contents(tmp_path / "mine") == {"thesis.txt": b"dear"}


def test_fresh_replaces_a_set_of_ours_and_nothing_else(
    mixed: PairManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out" / "set"
    few = len(build(mixed, folder).selection.kept)
    for hidden in (folder / ".DS_Store", folder / DATASET / ".DS_Store"):
        hidden.write_bytes(b"left by a file browser")
    again = build(mixed, folder, unjudged="keep", fresh=True)
    assert len(again.selection.kept) == len(list(read_rows(folder / DATASET))) > few and not again.before
    assert [path.name for path in folder.parent.iterdir()] == ["set"]
    before = contents(folder)
    assert before[".DS_Store"] == before[f"{DATASET}/.DS_Store"] == b"left by a file browser"
    monkeypatch.setattr(training_set, "verify_set", lambda *words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(mixed, folder, fresh=True)
    assert contents(folder) == before, "a build that fails leaves the set that was there"
    monkeypatch.undo()
    rename = os.rename

    def refused(source: Path, target: Path) -> None:
        if Path(source).name.startswith(".set-"):
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OSError, match="no"):
        build(mixed, folder, fresh=True)
    assert contents(folder) == before and [path.name for path in folder.parent.iterdir()] == ["set"]
    monkeypatch.undo()
    for name in ("thesis.txt", f"{DATASET}/thesis.txt", f"{DATASET}/2024/data.arrow"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("dear")
        with pytest.raises(ValueError, match=rf"holds something else already \({name}\)"):
            build(mixed, folder, fresh=True)
        assert (folder / name).read_text() == "dear"
        (folder / name).unlink()


@pytest.mark.parametrize("at", ["before", "after"])
def test_an_exchange_that_was_killed_is_finished(mixed: PairManifest, tmp_path: Path, at: str) -> None:
    folder, old = tmp_path / "set", tmp_path / ".set.99.old"
    build(mixed, folder)
    before = contents(folder)
    if at == "before":  # the new set took its place: the old one is out of the way
        folder.rename(old)
        assert build(mixed, folder).before is True
    else:
        shutil.copytree(folder, old)
        (old / ".note").write_text("dear")
        before[".note"] = b"dear"
        build(mixed, folder)
        shutil.copytree(folder / DATASET, old / DATASET)  # half of it is removed
        build(mixed, folder)
    assert contents(folder) == before and not old.exists()
    old.mkdir()
    (old / "thesis.txt").write_text("dear")
    build(mixed, folder)
    assert contents(old) == {"thesis.txt": b"dear"}, "a folder that only has such a name is left alone"


def test_a_word_of_people_makes_it_another_set(mixed: PairManifest, tmp_path: Path) -> None:
    """The rows say whose verdict counts, so a set from before people looked is not the same."""
    kept = build(mixed, tmp_path / "set").selection.kept
    mixed.append([decision_row(kept[-1], reviewer="Ada", verdict="different")])
    with pytest.raises(ValueError, match="holds a set built otherwise already"):
        build(mixed, tmp_path / "set")


def test_a_build_that_fails_leaves_nothing(
    mixed: PairManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("disk")

    monkeypatch.setattr(training_set, "verify_set", broken)
    with pytest.raises(RuntimeError, match="disk"):
        build(mixed, tmp_path / "out" / "set")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("other", ["keep_strengthened", "keep"])
def test_two_builds_at_once_do_not_meet(
    mixed: PairManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    folder, verify = tmp_path / "out" / "set", training_set.verify_set

    def built_meanwhile(*words: Any) -> None:
        monkeypatch.setattr(training_set, "verify_set", verify)
        build(mixed, folder, unjudged=other)
        verify(*words)

    monkeypatch.setattr(training_set, "verify_set", built_meanwhile)
    if other == "keep":
        with pytest.raises(ValueError, match="was built otherwise by another process meanwhile"):
            build(mixed, folder)
    else:
        build(mixed, folder)
    assert build(mixed, folder, unjudged=other).before is True
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_reading_back_finds_a_wrong_byte(mixed: PairManifest, tmp_path: Path) -> None:
    built = build(mixed, tmp_path / "set")
    folder, kept = tmp_path / "set" / "dataset", built.selection.kept
    verify_set(mixed, kept, folder)
    with pytest.raises(RuntimeError, match="3 rows, 2 were written"):
        verify_set(mixed, kept[:2], folder)
    with pytest.raises(RuntimeError, match="row 1: id reads back otherwise"):
        verify_set(mixed, kept[::-1], folder)
    (arrow,) = folder.glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    place = content.find(mixed.copy_path(kept[0]).read_bytes())
    assert place > 0
    content[place + 30] ^= 1
    arrow.write_bytes(bytes(content))
    with pytest.raises(RuntimeError, match="row 1: image_deg"):
        verify_set(mixed, kept, folder)


def test_every_row_must_have_its_copy(mixed: PairManifest, tmp_path: Path) -> None:
    """Release defect: whether a set has degraded copies was decided from its first row."""
    build(mixed, tmp_path / "set")
    built = load_from_disk(str(tmp_path / "set" / "dataset"))
    for name in training_set.IMAGES:
        built = built.cast_column(name, training_set.Image(decode=False))
    rows = list(built)
    rows[1]["image_deg"] = None
    from datasets import Dataset

    Dataset.from_list(rows, features=built.features).save_to_disk(str(tmp_path / "holes"))
    with pytest.raises(ValueError, match=r"row 2 \(002.png\) has no image_deg"):
        list(read_rows(tmp_path / "holes"))
    with pytest.raises(ValueError, match="no built set"):
        list(read_rows(tmp_path))


def test_an_empty_result_is_an_error_that_says_why(degraded_six: PairManifest, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pair is left to build from \(not judged\)"):
        build(degraded_six, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_scores_stay_with_the_originals_and_keep_their_digits(
    manifest: PairManifest, pictures: Pictures, tmp_path: Path
) -> None:
    """Release defects: scores rounded to two digits, and given to degraded rows as well."""
    from dataclasses import replace

    examples = [replace(pictures(1)[0], mos=3.14159265358979, mos_native=1 / 3)]
    degrade_examples(manifest, {"train": examples}, plan=a_plan(), workers=0, progress=no_progress)
    build(manifest, tmp_path / "set", unjudged="keep")
    (row,) = load_from_disk(str(tmp_path / "set" / "dataset"))
    assert row["score"] == 3.14159265358979 and row["score_native"] == 1 / 3
    digest = hashlib.sha256(examples[0].image.read_bytes()).hexdigest()
    assert row["sha256_orig"] == digest


def _rewritten(folder: Path, target: Path, **columns: list[Any]) -> Path:
    """A built set with other columns, as another program may save it."""
    built = load_from_disk(str(folder))
    for name, values in columns.items():
        built = built.remove_columns(name).add_column(name, values)
    built.save_to_disk(str(target))
    return target


def test_a_damaged_set_is_one_line_that_names_it(mixed: PairManifest, tmp_path: Path) -> None:
    whole = build(mixed, tmp_path / "set").folder / DATASET
    count = len(load_from_disk(str(whole)))
    good = [{"a": 1}, *[{}] * (count - 1)]
    assert [
        example.labels
        for example in unpack_set(
            _rewritten(whole, tmp_path / "good", labels=[json.dumps(row) for row in good]),
            images=tmp_path / "out",
        )
    ] == good
    broken = {
        "row 1 .* not JSON": {"labels": ["{"] * count},
        "row 1 .* twice": {"labels": ['{"a": 1, "a": 2}'] * count},
        "row 1 .* not an object": {"labels": ["[1]"] * count},
        "column 'labels' is Value": {"labels": [1] * count},
        "column 'score' is Value": {"score": ["high"] * count},
        "row 1 .* is no name of a file": {"group_id": ["../x"] * count},
    }
    folders = {
        fault: _rewritten(whole, tmp_path / str(place), **columns)
        for place, (fault, columns) in enumerate(broken.items())
    }
    for name, content in (("state.json", b"{"), ("dataset_info.json", b"[" * 100_000), ("state.json", b"[]")):
        harmed = folders.setdefault(f"{name}{content[:2]!r}", tmp_path / f"{name}{len(content)}")
        shutil.copytree(whole, harmed)
        (harmed / name).write_bytes(content)
    for cut in (0, 100, 5000):
        harmed = folders[f"cut {cut}"] = tmp_path / f"cut-{cut}"
        shutil.copytree(whole, harmed)
        arrow = next(harmed.glob("*.arrow"))
        arrow.write_bytes(arrow.read_bytes()[:cut])
    for fault, harmed in folders.items():
        with pytest.raises(UserError) as caught:
            unpack_set(harmed, images=tmp_path / "out")
        assert str(caught.value).startswith(str(harmed)) and "\n" not in str(caught.value), fault
        if fault in broken:
            assert re.search(fault, str(caught.value)), caught.value
