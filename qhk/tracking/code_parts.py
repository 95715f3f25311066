"""``code.jsonl``: which code computed which steps of a run that was resumed on another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qhk.files import json_line, read_json_lines, write_atomically
from qhk.tracking.provenance import earlier_codes, read_provenance

CODE_FILE = "code.jsonl"
SHOWN = 12
"""Digits of a digest in a line for the reader, as in every other one."""


@dataclass(frozen=True, kw_only=True)
class CodePart:
    """``code`` computed the run from behind ``after_step`` on (-1: from the start, cold start included)."""

    after_step: int
    code: str


def read_code_parts(directory: Path) -> list[CodePart]:
    """The parts of a run in order; empty before it began, one for a run of one code."""
    return [CodePart(**row) for row in read_json_lines(directory / CODE_FILE)]


def note_code(directory: Path, *, step: int) -> list[CodePart]:
    """The parts of the run, recorded, when its present code (in ``provenance.json``) goes on behind ``step``.

    What lay behind that step is computed again and forgotten here; ``step`` -1 begins anew. A run of an
    earlier version has no record: its last code before this is taken for all of it.
    """
    provenance = read_provenance(directory / "provenance.json")
    assert provenance is not None, "an open run directory says which code it was opened by"
    now, before = provenance.code_digest, earlier_codes(directory / "provenance.json")
    parts = [part for part in read_code_parts(directory) if part.after_step < step]
    if not parts:
        first = before[-1] if before and step >= 0 else now
        parts = [CodePart(after_step=-1, code=first)]
    if parts[-1].code != now:
        parts.append(CodePart(after_step=step, code=now))
    write_atomically(directory / CODE_FILE, "".join(json_line(asdict(part)) for part in parts))
    return parts


def code_text(parts: Sequence[CodePart]) -> str:
    """``aaaaaaaaaaaa, behind step 40 bbbbbbbbbbbb``."""
    return ", ".join(
        part.code[:SHOWN] if part.after_step < 0 else f"behind step {part.after_step} {part.code[:SHOWN]}"
        for part in parts
    )
