"""The training set on disk as a Hugging Face dataset: written, checked against its files, read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value
from datasets.arrow_dataset import Dataset
from datasets.load import load_from_disk
from datasets.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from qhk.errors import UserError
from qhk.files import write_bytes_atomically
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair, check_name
from qhk.types import Example

IMAGES = ("image_orig", "image_deg")

COLUMNS: dict[str, Any] = {
    "id": Value("string"),
    "dataset": Value("string"),
    "split": Value("string"),
    "group_id": Value("string"),
    "image_orig": Image(),
    "image_deg": Image(),
    "score": Value("float64"),
    "score_native": Value("float64"),
    "higher_is_better": Value("bool"),
    "score_std": Value("float64"),
    "reference": Value("string"),
    "labels": Value("string"),
    "degradation_type": Value("string"),
    "first_degradation": Value("string"),
    "second_degradation": Value("string"),
    "strengths": List(Value("float64")),
    "levels": List(Value("string")),
    "seeds": List(Value("int64")),
    "ssim": Value("float64"),
    "verdict": Value("string"),
    "verdict_of": Value("string"),
    "sha256_orig": Value("string"),
    "sha256_deg": Value("string"),
}
"""Columns of a built set. ``score`` in [1, 5] is the opinion of ``image_orig``; ``image_deg`` has none."""


def set_row(manifest: PairManifest, pair: Pair) -> dict[str, Any]:
    """Return one row of a built set; the two images are the bytes of their files, never encoded anew."""
    source, copy = pair.source, pair.copy
    kinds = [step.type for step in copy.degradations]
    return {
        "id": source.example_id,
        "dataset": source.dataset,
        "split": source.split,
        "group_id": pair.group_id,
        "image_orig": _image(manifest.source_path(pair)),
        "image_deg": _image(manifest.copy_path(pair)),
        "score": source.mos,
        "score_native": source.mos_native,
        "higher_is_better": source.higher_is_better,
        "score_std": source.mos_std,
        "reference": source.reference,
        "labels": json.dumps(dict(source.labels), ensure_ascii=False),
        "degradation_type": copy.type,
        "first_degradation": kinds[0],
        "second_degradation": kinds[1] if len(kinds) > 1 else None,
        "strengths": [step.strength for step in copy.degradations],
        "levels": [step.level for step in copy.degradations],
        "seeds": [step.seed for step in copy.degradations],
        "ssim": copy.ssim,
        "verdict": pair.verdict,
        "verdict_of": verdict_of(pair),
        "sha256_orig": source.sha256,
        "sha256_deg": copy.sha256,
    }


def write_set(manifest: PairManifest, pairs: Sequence[Pair], folder: Path, *, scratch: Path) -> None:
    """Write the set to ``folder`` by ``save_to_disk`` and checks it by reading it back, row by row.

    ``scratch`` is used on the way. Raises ``RuntimeError`` where what is read differs from what was written.
    """

    def rows() -> Iterator[dict[str, Any]]:
        for pair in pairs:
            yield set_row(manifest, pair)

    with _no_bars():
        built = Dataset.from_generator(
            rows, features=_features(), cache_dir=str(scratch), fingerprint=_fingerprint(pairs)
        )
        built.save_to_disk(str(folder))
    verify_set(manifest, pairs, folder)


def verify_set(manifest: PairManifest, pairs: Sequence[Pair], folder: Path) -> None:
    """Raise ``RuntimeError`` unless the set at ``folder`` holds exactly ``pairs``, every byte of them."""
    num_rows = 0
    for number, (pair, row) in enumerate(zip(pairs, read_rows(folder), strict=False), start=1):
        expected = set_row(manifest, pair)
        for name in expected:
            if row[name] != expected[name]:
                raise RuntimeError(f"{folder} row {number}: {name} reads back otherwise than it was written")
        for name, digest in zip(IMAGES, (pair.source.sha256, pair.copy.sha256), strict=True):
            if hashlib.sha256(row[name]["bytes"]).hexdigest() != digest:
                raise RuntimeError(f"{folder} row {number}: {name} is not the file of the manifest")
        num_rows = number
    found = len(load_from_disk(str(folder)))
    if not num_rows == found == len(pairs):
        raise RuntimeError(f"{folder} holds {found} rows, {len(pairs)} were written")


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a built set, images as ``{"bytes", "path"}``. Raises ``UserError`` for other sets.

    Every row is looked at: one without its degraded copy is an error that names it.
    """
    if not (folder / "dataset_info.json").is_file():
        raise UserError(f"{folder}: no built set; give the folder 'dataset' that qhk data build wrote")
    built = load_from_disk(str(folder))
    lacking = [name for name in COLUMNS if name not in built.column_names]
    if lacking:
        raise UserError(f"{folder} has no column {lacking[0]!r}: it was not written by qhk data build")
    for name in IMAGES:
        built = built.cast_column(name, Image(decode=False))
    for number, row in enumerate(built, start=1):
        for name in IMAGES:
            if row[name] is None or not row[name]["bytes"]:
                raise UserError(f"{folder} row {number} ({row['id']}) has no {name}: build the set again")
        yield row


def unpack_set(folder: Path, *, images: Path) -> list[Example]:
    """Return the examples of a built set with their degraded twins; their files lie below ``images``.

    Bytes are those of the original files. Files that are there already with the same bytes are left alone.
    """
    examples = []
    for row in read_rows(folder):
        paths = []
        try:
            check_name(row["group_id"])
        except KeyError as error:
            raise UserError(f"{folder}: {error.args[0]}; build the set again") from None
        for name, role in zip(IMAGES, ("original", "degraded"), strict=True):
            path = images / role / f"{row['group_id']}{Path(row[name]['path']).suffix.lower()}"
            if not path.is_file() or path.read_bytes() != row[name]["bytes"]:
                write_bytes_atomically(path, row[name]["bytes"])
            paths.append(path)
        examples.append(
            Example(
                id=row["id"],
                dataset=row["dataset"],
                image=paths[0],
                mos=row["score"],
                mos_native=row["score_native"],
                higher_is_better=row["higher_is_better"],
                mos_std=row["score_std"],
                reference=row["reference"],
                twin=paths[1],
                labels=json.loads(row["labels"]),
            )
        )
    return examples


@contextmanager
def _no_bars() -> Iterator[None]:
    """Return the library's progress bars are off inside the block."""
    were_on = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if were_on:
            enable_progress_bars()


def _features() -> Any:
    return Features(COLUMNS)  # type: ignore[no-untyped-call,arg-type]


def _image(path: Path) -> dict[str, Any]:
    return {"bytes": path.read_bytes(), "path": path.name}


def verdict_of(pair: Pair) -> str | None:
    """Return whose verdict counts: ``people``, a judge's name, or None without one."""
    if pair.verdict is None:
        return None
    return "people" if pair.human is not None else (pair.judgement.judge if pair.judgement else None)


def _fingerprint(pairs: Sequence[Pair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(f"{pair.group_id} {pair.source.sha256} {pair.copy.sha256} {pair.verdict}\n".encode())
    return digest.hexdigest()[:16]
