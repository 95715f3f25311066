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
from qhk.files import file_digest, parse_json, read_bytes, reading, write_bytes_atomically
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair, check_name
from qhk.plain import show_value
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
REQUIRED = ("id", "dataset", "group_id", *IMAGES, "score", "score_native", "higher_is_better", "labels")

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
    rows = read_rows(folder)
    for number, (pair, row) in enumerate(zip(pairs, rows, strict=False), start=1):
        expected = set_row(manifest, pair)
        for name in expected:
            if row[name] != expected[name]:
                raise RuntimeError(f"{folder} row {number}: {name} reads back otherwise than it was written")
        for name, digest in zip(IMAGES, (pair.source.sha256, pair.copy.sha256), strict=True):
            if hashlib.sha256(row[name]["bytes"]).hexdigest() != digest:
                raise RuntimeError(f"{folder} row {number}: {name} is not the file of the manifest")
        num_rows = number
    found = num_rows + sum(1 for _ in rows)
    if not num_rows == found == len(pairs):
        raise RuntimeError(f"{folder} holds {found} rows, {len(pairs)} were written")


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a built set, images as ``{"bytes", "path"}``. Raises ``UserError`` for other sets.

    Every row is looked at: one without its degraded copy is an error that names it.
    """
    if not (folder / "dataset_info.json").is_file():
        raise UserError(f"{folder}: no built set; give the folder 'dataset' that qhk data build wrote")
    with reading(folder, "a whole set of qhk data build", "build the set again"):
        built = load_from_disk(str(folder))
        if not isinstance(built, Dataset):
            raise ValueError("it has several splits")
        for name, kind in COLUMNS.items():
            found = built.features.get(name)
            if not (isinstance(found, Image) if name in IMAGES else found == kind):
                raise ValueError(f"column {name!r} is {'missing' if found is None else found}")
        for name in IMAGES:
            built = built.cast_column(name, Image(decode=False))
        for number, row in enumerate(built, start=1):
            empty = next((name for name in REQUIRED if row[name] is None), None)
            empty = empty or next(
                (name for name in IMAGES if not row[name]["bytes"] or not row[name]["path"]), None
            )
            if empty is not None:
                raise ValueError(f"row {number} ({row['id']}) has no {empty}")
            yield row


def unpack_set(folder: Path, *, images: Path) -> list[Example]:
    """Return the examples of a built set with their degraded twins; their files lie below ``images``.

    Bytes are those of the original files. Files that are there already with the same bytes are left alone.
    """
    examples = []
    for number, row in enumerate(read_rows(folder), start=1):
        paths = []
        where = f"{folder} row {number} ({row['id']})"
        try:
            check_name(row["group_id"])
            labels = parse_json(row["labels"])
            if not isinstance(labels, dict):
                raise ValueError(f"labels are {show_value(labels)}, not an object")
        except (KeyError, ValueError) as error:
            raise UserError(f"{where}: {error.args[0]}: build the set again") from None
        for name, role in zip(IMAGES, ("original", "degraded"), strict=True):
            path = images / role / f"{row['group_id']}{Path(row[name]['path']).suffix.lower()}"
            # Written anew where the file is other or cannot be read: it is ours.
            if not path.is_file() or file_digest(path) != hashlib.sha256(row[name]["bytes"]).hexdigest():
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
                labels=labels,
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
    return {"bytes": read_bytes(path), "path": path.name}


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
