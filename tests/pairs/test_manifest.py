from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhk.files import json_line
from qhk.pairs.manifest import open_pairs
from qhk.pairs.records import Answer, decision_row, failure_row, judgement_row, settings_row
from tests.pairs.builders import degraded, row, second, source


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "päirs — 画像" / "pairs.jsonl"


def judge(manifest: object, group: str, verdict: str | None, *, by: str = "ssim") -> dict[str, object]:
    pair = manifest.pairs[group]  # type: ignore[attr-defined]
    failure = "" if verdict else "timeout"
    return judgement_row(pair, judge=by, verdict=verdict, reply="Yes.", failure=failure, tokens=3)  # type: ignore[arg-type]


def test_records_come_back_merged(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    manifest.append([row(1), row(2, "noise"), settings_row(step="degrade", values={"seed": 0})])
    manifest.append([failure_row(step="degrade", item="set/x.png", reason="truncated")])
    manifest.append([judge(manifest, "group_000001", "same")])
    for opened in (manifest, open_pairs(path)):
        assert list(opened.pairs) == ["group_000001", "group_000002"]
        first, other = opened
        assert first.source == source("1.png") and first.copy == degraded("blur")
        assert first.verdict == "same" and other.verdict is None and other.copy.type == "noise"
        assert opened.failures == {("degrade", "set/x.png"): "truncated"}
        assert opened.settings == {"degrade": {"seed": 0}}
        assert opened.copy_path(first) == path.parent / "copies" / "a.png"
        judgement = first.judgement
        assert judgement is not None
        record = opened.record_at(judgement.place)
        assert (record["reply"], record["tokens"], record["step"]) == ("Yes.", 3, "filter")
        assert record["time"].endswith("+00:00")


def test_records_of_earlier_versions_call_the_step_stage(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    manifest.append([settings_row(step="degrade", values={"seed": 0})])
    manifest.append([failure_row(step="degrade", item="set/x.png", reason="truncated")])
    path.write_text(path.read_text().replace('"step"', '"stage"'))
    opened = open_pairs(path)
    assert opened.failures == {("degrade", "set/x.png"): "truncated"}
    assert opened.settings == {"degrade": {"seed": 0}}


def test_latest_of_a_kind_wins_and_old_versions_count_no_more(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    manifest.append([row(1)])
    pair, group = manifest.pairs["group_000001"], "group_000001"
    manifest.append([judge(manifest, group, "different")])
    manifest.append([judge(manifest, group, "same")])
    assert pair.verdict == "same"
    manifest.append([judge(manifest, group, None)])
    assert pair.verdict is None and pair.judgement is not None and pair.judgement.failure == "timeout"
    manifest.append([judge(manifest, group, "same", by="other")])
    manifest.append([judge(manifest, group, None)])
    assert pair.verdict == "same", "another judge's answer counts more than a failure"
    manifest.append([second(1)])
    assert pair.copy.type == "blur+noise" and pair.copy.version == 2
    assert pair.verdict is None and pair.judgement is None
    assert manifest.copy_path(pair, version=1) == path.parent / "copies" / "a.png"


def test_people_outvote_the_judge_and_ties_are_disputed(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    manifest.append([row(1)])
    pair = manifest.pairs["group_000001"]

    def decide(reviewer: str, verdict: str | None) -> None:
        manifest.append([decision_row(pair, reviewer=reviewer, verdict=verdict)])  # type: ignore[arg-type]

    manifest.append([judge(manifest, "group_000001", "same")])
    decide("ann", "different")
    assert pair.human == pair.verdict == "different"
    decide("bo", "same")
    assert pair.disputed and pair.verdict is None
    decide("cy", "same")
    assert pair.verdict == "same" and not pair.disputed
    decide("ann", None)
    assert pair.votes == {"same": 2}
    for reviewer in ("bo", "cy"):
        decide(reviewer, None)
    assert pair.human is None and not pair.disputed and pair.verdict == "same", "the judge's again"


@given(cut=st.integers(min_value=0, max_value=2000))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_opens_and_goes_on(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "pairs.jsonl"
    manifest = open_pairs(path, create=True)
    manifest.append([row(number) for number in range(3)])
    content = path.read_bytes()
    cut = min(cut, len(content))
    path.write_bytes(content[:cut])
    manifest = open_pairs(path, create=True)
    whole = content[:cut].count(b"\n")
    assert len(manifest) == max(0, whole - 1)
    manifest.append([row(9)])
    assert list(open_pairs(path).pairs)[-1] == "group_000009"
    assert len(open_pairs(path)) == max(0, whole - 1) + 1


def _append_many(path: Path, first: int) -> None:
    manifest = open_pairs(path)
    for number in range(first, first + 40):
        manifest.append([row(number), row(number + 1000)])


def test_concurrent_writers_lose_and_tear_nothing(path: Path) -> None:
    reader = open_pairs(path, create=True)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, first)) for first in (0, 100, 200)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        reader.refresh()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    reader.refresh()
    assert len(reader) == len(open_pairs(path)) == 240
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_writer_waits_for_the_lock(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b'{"kind": "settings", "stage": "x", "values": {}, ')
        other.flush()
        writer = threading.Thread(target=manifest.append, args=([row(1)],))
        writer.start()
        writer.join(timeout=0.3)
        assert writer.is_alive(), "it must not cut off what another is still writing"
        other.write(b'"time": ""}\n')
    writer.join()
    assert list(open_pairs(path).pairs) == ["group_000001"]
    assert "x" in open_pairs(path).settings


def test_a_killed_writer_leaves_a_readable_file(path: Path) -> None:
    open_pairs(path, create=True)
    writer = multiprocessing.get_context("fork").Process(target=_append_many, args=(path, 0))
    writer.start()
    reader = open_pairs(path)
    while len(reader) < 4:
        reader.refresh()
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    reader.refresh()
    known = len(reader)
    reader.append([row(5000)])
    assert len(open_pairs(path)) == known + 1


def test_nothing_is_ever_rewritten(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    before = path.read_bytes()
    for rows in ([row(1)], [judge], [second(1)]):
        rows = [judge(manifest, "group_000001", "same")] if rows == [judge] else rows
        manifest.append(rows)  # type: ignore[arg-type]
        assert path.read_bytes().startswith(before) and len(path.read_bytes()) > len(before)
        before = path.read_bytes()


def test_misfits_are_refused_and_leave_no_trace(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    manifest.append([row(1)])
    before = path.read_bytes()
    other = open_pairs(path)
    other.append([row(2)])
    unknown = judge(manifest, "group_000001", "same") | {"group_id": "group_9"}
    for rows, message in (
        ([row(3), row(1)], "holds pair 'group_000001' already"),
        ([row(2)], "holds pair 'group_000002' already"),
        ([row(4), row(4)], "holds pair 'group_000004' already"),
        ([unknown], "no pair 'group_9' for a judgement"),
        ([second(1, "blur")], "strengthened by another process"),
        ([second(1, "a", "b", "c")], "strengthened by another process"),
    ):
        with pytest.raises(ValueError, match=message):
            manifest.append(rows)
    assert path.read_bytes().startswith(before) and len(open_pairs(path)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no header line"),
        ('{"id": "a.png", "twin": "b.png"}\n', "line 1 is no header"),
        ('{"format": "qhk pairs", "version": 7}\n', "version 7 .* this qhk reads 1"),
        ('{"format": "qhk pairs", "version": 1}\n{oops\n', "line 2 is not a record"),
        ('{"format": "qhk pairs", "version": 1}\n{"kind": "pair"}\n', "line 2 .*KeyError"),
        ('{"format": "qhk pairs", "version": 1}\n\n[1]\n', "line 3 is not a record"),
        ('{"format": "qhk pairs", "version": 1}\n' + "[" * 100_000 + "\n", "line 2 is not a record"),
        ('{"format": "qhk pairs", "version": 1}\n' + "9" * 5000 + "\n", "line 2 is not a record"),
        (
            '{"format": "qhk pairs", "version": 1}\n' + json_line(row(1, path=3)),
            r"line 2 is not a record of pairs \(TypeError path is 3, no text",
        ),
        ('{"format": "qhk pairs", "version": 1}\n{"kind": "odd"}\n', "kind 'odd'"),
    ],
)
def test_broken_files_name_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        open_pairs(path)


@pytest.mark.parametrize(
    "content", [b'[{"id": "a.png"}]', b"one\ntwo", b"\x89PNG\r\n\x1a\n...", b'{"kind": "pair"']
)
def test_a_file_of_another_kind_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    """Its last line without a newline is no torn record: it is somebody's data."""
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no manifest|not a record"):
        open_pairs(path, create=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kept", [0, 1, 20, 90])
def test_a_header_that_was_torn_is_written_again(path: Path, kept: int) -> None:
    open_pairs(path, create=True)
    path.write_bytes(path.read_bytes()[:kept])
    open_pairs(path, create=True).append([row(1)])
    assert len(open_pairs(path)) == 1


def test_a_missing_manifest_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such manifest; make it with qhk data degrade"):
        open_pairs(tmp_path / "none.jsonl")


def test_relative_paths_leave_the_folder_and_return(path: Path) -> None:
    manifest = open_pairs(path, create=True)
    outside = path.parent.parent / "ima ges" / "a.png"
    assert manifest.relative(outside) == "../ima ges/a.png"
    assert (manifest.folder / manifest.relative(outside)).resolve() == outside.resolve()


@pytest.mark.parametrize("answer", ["unsure", "skip"])
def test_an_answer_without_a_verdict_stands_but_does_not_count(path: Path, answer: Answer) -> None:
    manifest = open_pairs(path, create=True)
    manifest.append([row(1)])
    (pair,) = manifest
    manifest.append([decision_row(pair, reviewer="ann", verdict="same")])
    manifest.append([decision_row(pair, reviewer="ann", verdict=answer)])
    decision = open_pairs(path).pairs[pair.group_id].decisions["ann", 1]
    assert (decision.answer, decision.verdict) == (answer, None)
    assert not pair.votes and pair.human is None
