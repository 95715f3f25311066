"""Stage 4: the training set, the twins that a run reads, and the list of what was left out."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.files import json_line, write_atomically
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair
from qhk.pairs.selection import Dropped, Selection, Unjudged, select_pairs
from qhk.pairs.strengthen import HumanReview
from qhk.pairs.training_set import verdict_of, write_set

DATASET, TWINS, DROPPED, REPORT = "dataset", "twins.jsonl", "dropped.csv", "report.json"


@dataclass(frozen=True, kw_only=True)
class Built:
    """A built set: where it lies, what was kept and dropped, and whether it was there already."""

    folder: Path
    selection: Selection
    before: bool


def build_set(
    manifest: PairManifest, folder: Path, *, human_review: HumanReview, unjudged: Unjudged
) -> Built:
    """Writes ``folder``: ``dataset`` (Hugging Face), ``twins.jsonl``, ``dropped.csv`` and ``report.json``.

    Everything is written beside ``folder``, checked, and renamed. A folder built from the same manifest
    in the same way is left as it is. Raises ``ValueError`` where ``folder`` holds anything else, or no
    pair is kept.
    """
    selection = select_pairs(manifest, human_review=human_review, unjudged=unjudged)
    report = _report(manifest, selection, human_review=human_review, unjudged=unjudged)
    if folder.exists():
        if _read_report(folder) == report:
            return Built(folder=folder, selection=selection, before=True)
        raise UserError(
            f"pairs.build.output: {folder} holds another set already: "
            "give another folder, or remove it yourself"
        )
    if not selection.kept:
        reasons = (
            "; ".join(sorted({item.reason for item in selection.dropped})[:3]) or "the manifest is empty"
        )
        raise UserError(f"{manifest.path}: no pair is left to build from ({reasons})")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        write_set(manifest, selection.kept, part / DATASET, scratch=part / "scratch")
        shutil.rmtree(part / "scratch")
        twins = "".join(json_line(_twin(manifest, pair, folder)) for pair in selection.kept)
        write_atomically(part / TWINS, twins)
        write_atomically(part / DROPPED, _table(selection.dropped))
        write_atomically(part / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Built(folder=folder, selection=selection, before=False)


def _twin(manifest: PairManifest, pair: Pair, folder: Path) -> dict[str, Any]:
    """One line of the twins' file, which ``twin=manifest`` reads; its path starts at ``folder``."""
    path = Path(os.path.relpath(manifest.copy_path(pair).resolve(), folder.resolve())).as_posix()
    return {
        "id": pair.source.example_id,
        "dataset": pair.source.dataset,
        "twin": path,
        "degradation_type": pair.copy.type,
        "sha256": pair.copy.sha256,
    }


def _table(dropped: Sequence[Dropped]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Dropped)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(item) for item in dropped)
    return text.getvalue()


def _report(manifest: PairManifest, selection: Selection, **settings: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    for pair in selection.kept:
        words = (pair.group_id, pair.source.sha256, pair.copy.sha256, pair.verdict, verdict_of(pair))
        digest.update(f"{words}\n".encode())
    for item in selection.dropped:
        digest.update(f"{item.group_id} {item.dataset} {item.example_id} {item.reason}\n".encode())
    return {
        "pairs": len(manifest),
        "kept": len(selection.kept),
        "dropped": len(selection.dropped),
        "settings": settings,
        "stages": {stage: dict(values) for stage, values in manifest.settings.items()},
        "digest": digest.hexdigest(),
    }


def _read_report(folder: Path) -> Any:
    path = folder / REPORT
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except json.JSONDecodeError:
        return None
