"""The manifest of pairs: one JSON Lines file that every step reads and appends to, and nobody rewrites.

The first line is a header with the format's version. A writer holds the file's lock (``flock``, so that a
dead process holds nothing), first takes in what others wrote, then writes its records in one go and syncs
them. A last line without its newline was torn by a killed writer: readers stop before it, the next writer
cuts it off.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from qhk.data.roots import lies_within, picture_roots
from qhk.errors import UserError
from qhk.files import RESTORE, json_line, parse_json, reading, writing
from qhk.pairs.records import Pair, read_copy, read_decision, read_judgement, read_pair
from qhk.settings.root import Settings

FORMAT, VERSION = "qhk pairs", 1


def open_pairs(path: Path, *, create: bool = False, roots: Sequence[Path] | None = None) -> PairManifest:
    """Return the manifest at ``path`` with all its records merged; ``create`` makes it where there is none.

    ``roots`` are the folders beside its own in which it may name pictures; None for one that is known to be
    one's own.

    Raises ``UserError`` where there is no such file, where it is no manifest or one of another version,
    and on a line that is not a record.
    """
    if create:
        _start(path)
    elif not path.is_file():
        raise UserError(f"{path}: no such manifest; make it with qhk data degrade, or give another file")
    return PairManifest(path, roots=roots)


def open_manifest(settings: Settings) -> PairManifest:
    """Return the manifest of a command's settings; its pictures lie beside it or in a root of theirs."""
    roots = picture_roots(settings.paths, settings.pairs, list(settings.dataset.values()))
    return open_pairs(Path(settings.pairs.manifest), roots=roots)


def _start(path: Path) -> None:
    """Write the header into a new or empty file, or over one that was torn; no other file is touched."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    header = {"kind": "header", "format": FORMAT, "version": VERSION}
    known = json_line(header).encode()[:-2]
    with _locked(path) as file:
        file.seek(0)
        first = file.readline()
        if first.endswith(b"\n"):
            return
        if first[: len(known)] != known[: len(first)]:
            raise UserError(f"{path} is no manifest of pairs, and was left as it is; give another file")
        file.truncate(0)
        _write(file, [{**header, "time": _now()}])


class PairManifest:
    """The merged state of a manifest, kept up to date by ``append`` and ``refresh``; holds no pictures.

    ``pairs`` maps group ids to pairs in the order of the file. ``failures`` maps (step, item) to the
    reason of the latest failure; a later success of the same item does not remove it here.
    ``asked`` holds every image that was ever to have a copy, whether it was reached or not.
    ``settings`` maps a step to the values it last worked with.
    """

    def __init__(self, path: Path, *, roots: Sequence[Path] | None = None) -> None:
        self.path = path
        self._roots = None if roots is None else (path.parent.resolve(), *roots)
        self.pairs: dict[str, Pair] = {}
        self.failures: dict[tuple[str, str], str] = {}
        self.asked: dict[str, None] = {}
        self.settings: dict[str, Mapping[str, Any]] = {}
        self._end = 0
        self._lines = 0
        self.refresh()

    @property
    def folder(self) -> Path:
        return self.path.parent

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs.values())

    def __len__(self) -> int:
        return len(self.pairs)

    def source_path(self, pair: Pair) -> Path:
        """Return where the original lies. Raises ``UserError`` where the manifest may not lead there."""
        return self._permitted(pair, pair.source.path)

    def copy_path(self, pair: Pair, *, version: int | None = None) -> Path:
        """Return where a degraded copy lies: the newest, or that of ``version``; as ``source_path`` does."""
        copy = pair.copy if version is None else pair.copies[version - 1]
        return self._permitted(pair, copy.path)

    def _permitted(self, pair: Pair, written: str) -> Path:
        path = self.folder / written
        if self._roots is not None and not lies_within(path, self._roots):
            raise UserError(
                f"{self.path}: pair {pair.group_id} names a picture outside the manifest's folder, paths.* "
                f"and the sets' roots; if it may be read, set pairs.roots=[{path.resolve().parent}]"
            )
        return path

    def relative(self, path: Path) -> str:
        """Return ``path`` as the manifest writes it: relative to its own folder, with forward slashes."""
        return Path(os.path.relpath(path.resolve(), self.folder.resolve())).as_posix()

    def refresh(self) -> int:
        """Take in what was appended since the last look; the number of new records."""
        with reading(self.path, "a manifest of pairs", RESTORE), self.path.open("rb") as file:
            return self._take_in(file)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write records, each with its time, after what others wrote; they are on disk on return.

        Raises ``UserError`` where a record does not fit the state: a second ``pair`` of one group id, a
        copy whose number of degradations is not the next, a word on an unknown pair. Then nothing of
        ``rows`` is written.
        """
        stamped = [{**row, "time": _now()} for row in rows]
        with _locked(self.path) as file:
            _cut_torn_line(file)
            self._take_in(file)
            self._refuse_misfits(stamped)
            _write(file, stamped)
            self._take_in(file)

    def record_at(self, place: int) -> dict[str, Any]:
        """Return the whole record that begins at byte ``place``: a judge's verbatim reply, tokens, time."""
        with reading(self.path, "a manifest of pairs", RESTORE), self.path.open("rb") as file:
            file.seek(place)
            row: dict[str, Any] = parse_json(file.readline(), self.path)
        return row

    def failure_lines(self, step: str, number: int) -> list[str]:
        """Return a line for each of the last ``number`` failures of a step, five at the most."""
        lines = [f"  {item}: {why}" for (where, item), why in self.failures.items() if where == step]
        more = [f"  ... and {number - 5} more; all stand in {self.path}"] if number > 5 else []
        return [*lines[-number:][:5], *more] if number else []

    def _refuse_misfits(self, rows: Iterable[Mapping[str, Any]]) -> None:
        new: set[str] = set()
        for row in rows:
            kind, group_id = row["kind"], row.get("group_id")
            if kind in ("asked", "failure", "settings"):
                continue
            pair = self.pairs.get(str(group_id))
            if kind == "pair":
                if pair is not None or group_id in new:
                    raise UserError(f"{self.path} holds pair {group_id!r} already: it cannot be made again")
                new.add(str(group_id))
            elif pair is None:
                raise UserError(f"{self.path} has no pair {group_id!r} for a {kind}: correct the group id")
            elif kind == "strengthened" and len(row["copy"]["degradations"]) != len(pair.copies) + 1:
                raise UserError(
                    f"{self.path}: pair {group_id!r} was strengthened by another process: run again"
                )

    def _take_in(self, file: BinaryIO) -> int:
        file.seek(self._end)
        count = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            self._lines += 1
            self._merge_line(line, place=self._end)
            self._end += len(line)
            count += 1
        if self._lines == 0:
            raise UserError(f"{self.path} has no header line: it is no manifest of pairs; give another file")
        return count

    def _merge_line(self, line: bytes, *, place: int) -> None:
        where = f"{self.path} line {self._lines}"
        if not line.strip():
            return
        try:
            row = parse_json(line)
            if self._lines > 1:
                self._merge(row, place=place)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__} {error}"
            raise UserError(
                f"{where} is not a record of pairs ({cause}): repair or remove that line"
            ) from None
        if self._lines == 1:
            _check_header(row, self.path)

    def _merge(self, row: Mapping[str, Any], *, place: int) -> None:
        kind = row["kind"]
        if kind == "pair":
            self.pairs.setdefault(row["group_id"], read_pair(row))
        elif kind == "strengthened":
            self.pairs[row["group_id"]].copies.append(read_copy(row["copy"]))
        elif kind == "judgement":
            judgement = read_judgement(row, place=place)
            self.pairs[row["group_id"]].judgements[judgement.judge, judgement.version] = judgement
        elif kind == "decision":
            decision = read_decision(row)
            self.pairs[row["group_id"]].decisions[decision.reviewer, decision.version] = decision
        elif kind == "failure":
            self.failures[_step(row), row["item"]] = row["reason"]
        elif kind == "asked":
            self.asked |= dict.fromkeys(row["items"])
        elif kind == "settings":
            self.settings[_step(row)] = row["values"]
        else:
            raise KeyError(f"kind {kind!r}")


def _step(row: Mapping[str, Any]) -> str:
    """Return the step that wrote a record; manifests of earlier versions call it ``stage``."""
    step: str = row["step"] if "step" in row else row["stage"]
    return step


def _check_header(row: Any, path: Path) -> None:
    if not isinstance(row, dict) or row.get("format") != FORMAT:
        raise UserError(f"{path} line 1 is no header of {FORMAT!r}: it is no manifest; give another file")
    if row.get("version") != VERSION:
        raise UserError(
            f"{path} has version {row.get('version')} of the manifest, this qhk reads {VERSION}: "
            "use the qhk that wrote it"
        )


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Return the file, exclusively ours. Raises ``UserError`` where it cannot be written."""
    with writing(path):
        opened = path.open("a+b")
    with opened as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _cut_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    keep = end
    while keep > 0:
        start = max(0, keep - 65536)
        file.seek(start)
        newline = file.read(keep - start).rfind(b"\n")
        if newline >= 0:
            keep = start + newline + 1
            break
        keep = start
    if keep < end:
        file.truncate(keep)


def _write(file: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    file.seek(0, os.SEEK_END)
    file.write("".join(json_line(row) for row in rows).encode())
    file.flush()
    os.fsync(file.fileno())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
