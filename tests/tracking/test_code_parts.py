"""Which code computed which steps: what is computed again counts for the code that does it."""

from __future__ import annotations

from pathlib import Path

from qhk.tracking.code_parts import CODE_FILE, code_text, note_code, read_code_parts
from qhk.tracking.provenance import gather_provenance, write_provenance


def _start(directory: Path, code: str, *, behind: int) -> list[tuple[int, str]]:
    """The parts after a start by ``code`` that went on behind a step."""
    provenance = gather_provenance(code=code, data_fingerprints={}, accelerators=[], threads=1)
    write_provenance(directory / "provenance.json", provenance)
    parts = note_code(directory, step=behind)
    assert parts == read_code_parts(directory)
    return [(part.after_step, part.code) for part in parts]


def test_a_run_of_one_code_is_one_part_however_often_it_resumes(tmp_path: Path) -> None:
    assert read_code_parts(tmp_path) == []
    for behind in (-1, 0, 4, 8, 8):
        assert _start(tmp_path, "a", behind=behind) == [(-1, "a")]


def test_each_change_is_a_part(tmp_path: Path) -> None:
    _start(tmp_path, "a", behind=-1)
    assert _start(tmp_path, "b", behind=4) == [(-1, "a"), (4, "b")]
    assert _start(tmp_path, "b", behind=6) == [(-1, "a"), (4, "b")]
    assert _start(tmp_path, "a", behind=9) == [(-1, "a"), (4, "b"), (9, "a")]
    assert code_text(read_code_parts(tmp_path)) == "a, behind step 4 b, behind step 9 a"


def test_steps_that_are_taken_again_belong_to_who_takes_them(tmp_path: Path) -> None:
    _start(tmp_path, "a", behind=-1)
    _start(tmp_path, "b", behind=4)
    assert _start(tmp_path, "c", behind=4) == [(-1, "a"), (4, "c")]
    assert _start(tmp_path, "a", behind=2) == [(-1, "a")]
    assert _start(tmp_path, "b", behind=0) == [(-1, "a"), (0, "b")], "the cold start stays a's"
    assert _start(tmp_path, "c", behind=-1) == [(-1, "c")]


def test_a_run_of_an_earlier_version_has_no_record(tmp_path: Path) -> None:
    _start(tmp_path, "a", behind=-1)
    (tmp_path / CODE_FILE).unlink()
    assert _start(tmp_path, "b", behind=4) == [(-1, "a"), (4, "b")]
