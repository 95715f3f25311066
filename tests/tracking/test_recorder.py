"""metrics.jsonl: appended, valid JSON, cut for a resume, torn lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from qhk.errors import UserError
from qhk.files import read_json_lines
from qhk.tracking.recorder import MetricSection, MetricsRecorder, missing_steps, read_metrics

TRAIN, COLD, EVAL = MetricSection.TRAIN, MetricSection.COLD_START, MetricSection.EVAL
LOSS = "train/loss/total"


def keys(path: Path) -> list[tuple[int, str]]:
    return [(row.step, row.section.value) for row in read_metrics(path)]


def test_rows_are_lines_of_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    recorder = MetricsRecorder(path)
    recorder.record(step=1, section=TRAIN, metrics={LOSS: math.inf, "train/scores/distinct": 7})
    recorder.record(step=2, section=TRAIN, metrics={LOSS: 0.1 + 0.2})
    lines = path.read_text().splitlines()
    assert lines[0] == '{"step": 1, "section": "train", "train/loss/total": null, "train/scores/distinct": 7}'
    assert json.loads(lines[1])[LOSS] == 0.1 + 0.2
    rows = read_metrics(path)
    assert math.isnan(rows[0].metrics[LOSS])
    assert (rows[1].step, rows[1].section) == (2, TRAIN)


def test_undeclared_name_writes_nothing(tmp_path: Path) -> None:
    recorder = MetricsRecorder(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="is not declared"):
        recorder.record(step=1, section=TRAIN, metrics={LOSS: 1.0, "train/loss": 2.0})
    assert not recorder.path.exists()


def test_cut_for_a_resume_keeps_other_sections(tmp_path: Path) -> None:
    recorder = MetricsRecorder(tmp_path / "metrics.jsonl")
    recorder.record(step=400, section=COLD, metrics={"cold_start/loss": 1.0})
    for step in (1, 2, 3):
        recorder.record(step=step, section=TRAIN, metrics={LOSS: float(step)})
    recorder.record(step=3, section=EVAL, metrics={"eval/mean/srcc": 0.5})
    recorder.cut_after(2, sections=[TRAIN, EVAL])
    assert keys(recorder.path) == [(400, "cold_start"), (1, "train"), (2, "train")]
    recorder.record(step=3, section=TRAIN, metrics={LOSS: 9.0})
    recorder.cut_after(-1, sections=list(MetricSection))
    assert keys(recorder.path) == [] and recorder.path.exists()
    taken = [(row["step"], row["section"]) for row in read_json_lines(tmp_path / "metrics.dropped.jsonl")]
    assert taken == [(3, "train"), (3, "eval"), (400, "cold_start"), (1, "train"), (2, "train"), (3, "train")]


def test_steps_without_a_row_are_found(tmp_path: Path) -> None:
    recorder = MetricsRecorder(tmp_path / "metrics.jsonl")
    assert missing_steps(recorder.path, TRAIN, last=2) == [1, 2]
    for step in (1, 2, 4):
        recorder.record(step=step, section=TRAIN, metrics={LOSS: 1.0})
    recorder.record(step=3, section=EVAL, metrics={"eval/mean/srcc": 0.5})
    assert missing_steps(recorder.path, TRAIN, last=2) == []
    assert missing_steps(recorder.path, TRAIN, last=5) == [3, 5]


def test_cut_does_not_touch_a_record_that_ends_in_time(tmp_path: Path) -> None:
    recorder = MetricsRecorder(tmp_path / "metrics.jsonl")
    recorder.record(step=1, section=TRAIN, metrics={LOSS: 1.0})
    inode = recorder.path.stat().st_ino
    recorder.cut_after(1, sections=list(MetricSection))
    assert recorder.path.stat().st_ino == inode


def test_opening_repairs_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsRecorder(path).record(step=1, section=TRAIN, metrics={LOSS: 1.0})
    with path.open("a") as file:
        file.write('{"step": 2, "sta')
    assert keys(path) == [(1, "train")]
    MetricsRecorder(path).record(step=2, section=TRAIN, metrics={LOSS: 2.0})
    assert keys(path) == [(1, "train"), (2, "train")]


def test_rows_of_one_step_and_section_come_as_one_with_the_later_values(tmp_path: Path) -> None:
    recorder = MetricsRecorder(tmp_path / "metrics.jsonl")
    recorder.record(step=1, section=EVAL, metrics={"eval/mean/srcc": 0.1, "eval/koniq/srcc": 0.3})
    recorder.record(step=2, section=TRAIN, metrics={LOSS: 1.0})
    recorder.record(step=1, section=EVAL, metrics={"eval/mean/srcc": 0.2})
    rows = read_metrics(recorder.path)
    assert [row.step for row in rows] == [1, 2]
    assert rows[0].metrics == {"eval/mean/srcc": 0.2, "eval/koniq/srcc": 0.3}


@pytest.mark.parametrize(
    "row",
    [
        '{"loss": 1}',
        '{"step": "1", "section": "train"}',
        '{"step": 1}',
        '{"step": 1, "section": ["train"]}',
        '{"step": 1, "section": "train", "train/loss/total": "1.0"}',
    ],
)
def test_foreign_rows_are_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(row + "\n")
    for read in (read_metrics, lambda path: MetricsRecorder(path).cut_after(0, sections=[TRAIN])):
        with pytest.raises(UserError, match=r"metrics\.jsonl (holds|line 1 has) "):
            read(path)
    assert path.read_text() == row + "\n"


def test_a_record_of_an_earlier_version_is_read_and_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "stage": "train", "train/loss/total": 1.0}\n')
    recorder = MetricsRecorder(path)
    recorder.record(step=2, section=TRAIN, metrics={LOSS: 2.0})
    assert [(row.step, row.section, dict(row.metrics)) for row in read_metrics(path)] == [
        (1, TRAIN, {LOSS: 1.0}),
        (2, TRAIN, {LOSS: 2.0}),
    ]
    recorder.cut_after(0, sections=[TRAIN])
    assert read_metrics(path) == []
