"""Builds the training set, the list of degraded twins that a run reads, and the list of dropped pairs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from qhk.errors import UserError
from qhk.files import file_digest, json_line, new_folder, read_json, write_atomically, writing
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair
from qhk.pairs.strengthen import HumanReview, awaits_review
from qhk.pairs.training_set import verdict_of, write_set

DATASET, TWINS, DROPPED, REPORT = "dataset", "twins.jsonl", "dropped.csv", "report.json"

_OURS = re.compile(
    rf"{DATASET}/(?:dataset_info\.json|state\.json|(?:data|cache)-[\w-]+\.arrow)"
    rf"|{re.escape(TWINS)}|{re.escape(DROPPED)}|{re.escape(REPORT)}"
).fullmatch
"""Matches the files of a built set: those of ``save_to_disk`` and of its readers' cache, and three beside."""


Unjudged = Literal["drop", "keep_strengthened", "keep"]


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What is left out: a pair, or an image that never became one (``group_id`` empty)."""

    group_id: str
    dataset: str
    example_id: str
    image: str
    step: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The pairs that are kept, in the manifest's order, and everything that is not."""

    kept: list[Pair]
    dropped: list[Dropped]


@dataclass(frozen=True, kw_only=True)
class Built:
    """A built set: where it lies, what was kept and dropped, and whether it was there already."""

    folder: Path
    selection: Selection
    before: bool


def build_set(
    manifest: PairManifest,
    folder: Path,
    *,
    human_review: HumanReview,
    unjudged: Unjudged,
    fresh: bool = False,
) -> Built:
    """Write ``folder``: ``dataset`` (Hugging Face), ``twins.jsonl``, ``dropped.csv`` and ``report.json``.

    Everything is written beside ``folder``, checked, and renamed. A folder built from the same manifest
    in the same way is left as it is; ``fresh`` replaces one that was built otherwise, of which only the files
    of a built set are removed. Raises ``UserError`` where ``folder`` holds anything else at any depth, hidden
    files apart, which stay, or where no pair is kept.
    """
    _recover(folder)
    selection = select_pairs(manifest, human_review=human_review, unjudged=unjudged)
    report = _report(manifest, selection, human_review=human_review, unjudged=unjudged)
    if folder.exists():
        found = _read_report(folder)
        if found == report:
            return Built(folder=folder, selection=selection, before=True)
        foreign = [name for name in _foreign(folder) if not Path(name).name.startswith(".")]
        ours = isinstance(found, dict) and not foreign
        if not (fresh and ours):
            what = "a set built otherwise" if ours else "something else"
            such = f" ({foreign[0]})" if foreign else ""
            fix = "replace it with fresh=true, or give another folder" if ours else "give another folder"
            raise UserError(f"pairs.build.output: {folder} holds {what} already{such}: {fix}")
    if not selection.kept:
        reasons = (
            "; ".join(sorted({item.reason for item in selection.dropped})[:3]) or "the manifest is empty"
        )
        raise UserError(f"{manifest.path}: no pair is left to build from ({reasons})")
    with writing(folder):
        _write(manifest, selection, report, folder)
    return Built(folder=folder, selection=selection, before=False)


def _write(manifest: PairManifest, selection: Selection, report: dict[str, Any], folder: Path) -> None:
    """Write the set beside ``folder`` and put it there once it is whole; one that was there is removed then.

    Raises ``UserError`` where another process has built another set there first.
    """
    old, replaces = folder.with_name(f".{folder.name}.{secrets.randbelow(10**9)}.old"), folder.exists()
    try:
        with new_folder(folder) as part:
            write_set(manifest, selection.kept, part / DATASET, scratch=part / "scratch")
            shutil.rmtree(part / "scratch")
            twins = "".join(json_line(_twin(manifest, pair, folder)) for pair in selection.kept)
            write_atomically(part / TWINS, twins)
            write_atomically(part / DROPPED, _table(selection.dropped))
            write_atomically(part / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
            if replaces:
                folder.rename(old)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    if _read_report(folder) != report:
        raise UserError(
            f"pairs.build.output: {folder} was built otherwise by another process meanwhile: "
            "give another folder, or replace it with fresh=true"
        )
    if old.exists():
        _remove(old, keep=folder)


def _foreign(folder: Path) -> list[str]:
    """Return what is below ``folder``, by its path from there, and no file of a built set; folders apart.

    A folder that is none, or is a link, is foreign as a whole.
    """
    if folder.is_symlink() or not folder.is_dir():
        return [folder.name]
    inside = ((path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")))
    return [
        name for name, path in inside if not (path.is_dir() and not path.is_symlink()) and not _OURS(name)
    ]


def _recover(folder: Path) -> None:
    """Finish what a build that was killed left of an exchange: the set before goes back, or is removed."""
    name = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.old")
    parent = folder.parent
    for old in sorted(parent.iterdir()) if parent.is_dir() else ():
        if name.fullmatch(old.name):
            with writing(old):
                if os.path.lexists(folder) and (_read_report(old) or not _foreign(old)):
                    _remove(old, keep=folder)
                elif _read_report(old):  # is removed first, so all of the set is there
                    old.rename(folder)


def _remove(old: Path, *, keep: Path) -> None:
    """Remove a set that was replaced; what is not ours in it goes to the same place in ``keep``."""
    for name in _foreign(old):
        target = keep / name
        if os.path.lexists(target):
            return  # Nothing is lost for want of a name: the rest of the old set stays beside the new one.
        target.parent.mkdir(parents=True, exist_ok=True)
        (old / name).rename(target)
    (old / REPORT).unlink(missing_ok=True)
    shutil.rmtree(old)


def _twin(manifest: PairManifest, pair: Pair, folder: Path) -> dict[str, Any]:
    """Return one line of the twins' file, which ``twin=manifest`` reads; its path starts at ``folder``."""
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
        "steps": {step: dict(values) for step, values in manifest.settings.items()},
        "digest": digest.hexdigest(),
    }


def _read_report(folder: Path) -> Any:
    """Return what the report of a built set says; None for anything that is no such report."""
    try:
        report = read_json(folder / REPORT)
    except UserError:
        return None
    if isinstance(report, dict) and "stages" in report:
        report["steps"] = report.pop("stages")  # as sets built by earlier versions call them
    return report


def select_pairs(manifest: PairManifest, *, human_review: HumanReview, unjudged: Unjudged) -> Selection:
    """Return the pairs to keep, and every other pair and every image without a pair with the reason.

    Files are held against the digests of the manifest: a pair whose original or copy changed is dropped.
    """
    kept, dropped = [], []
    for pair in manifest:
        step, reason = why_dropped(pair, human_review=human_review, unjudged=unjudged)
        if not reason:
            step, reason = "build", _changed(manifest, pair)
        if reason:
            dropped.append(_dropped(pair, step, reason))
        else:
            kept.append(pair)
    have = {f"{pair.source.dataset}/{pair.source.example_id}" for pair in manifest}
    for (step, item), reason in manifest.failures.items():
        if step == "degrade" and item not in have:
            dropped.append(_without_pair(item, f"no copy could be made: {reason}"))
    for item in manifest.asked:
        if item not in have and ("degrade", item) not in manifest.failures:
            dropped.append(_without_pair(item, "not degraded yet: run qhk data degrade to its end"))
    return Selection(kept=kept, dropped=dropped)


def _without_pair(item: str, reason: str) -> Dropped:
    dataset, _, example = item.partition("/")
    return Dropped(group_id="", dataset=dataset, example_id=example, image="", step="degrade", reason=reason)


def why_dropped(pair: Pair, *, human_review: HumanReview, unjudged: Unjudged) -> tuple[str, str]:
    """Return the step and the reason that keep a pair out; two empty texts for one that is kept.

    Kept are pairs that people, or else the judge, see a difference in. Of those nobody answered on,
    ``keep_strengthened`` keeps the ones degraded twice and ``keep`` all.
    """
    if pair.disputed:
        return "review", "reviewers disagree"
    if awaits_review(pair, human_review):
        return "review", "looks the same to the judge, not reviewed by a person"
    if pair.verdict == "unusable":
        return ("review" if pair.human else "filter"), "unusable"
    if pair.verdict == "same":
        return "strengthen", (
            "looks the same, not strengthened" if pair.copy.version == 1 else "still looks the same"
        )
    if pair.verdict == "different" or unjudged == "keep":
        return "", ""
    if pair.copy.version > 1 and unjudged == "keep_strengthened":
        return "", ""
    if pair.judgement is not None:
        return "filter", f"the judge failed: {pair.judgement.failure}"
    return "filter", "not judged"


def count_reasons(dropped: list[Dropped]) -> Mapping[tuple[str, str], int]:
    """Return (step, reason) -> how many; details behind a colon do not divide a reason."""
    return Counter((item.step, item.reason.partition(":")[0]) for item in dropped)


def _dropped(pair: Pair, step: str, reason: str) -> Dropped:
    return Dropped(
        group_id=pair.group_id,
        dataset=pair.source.dataset,
        example_id=pair.source.example_id,
        image=pair.source.path,
        step=step,
        reason=reason,
    )


def _changed(manifest: PairManifest, pair: Pair) -> str:
    for what, path, digest in (
        ("the original", manifest.source_path(pair), pair.source.sha256),
        ("the copy", manifest.copy_path(pair), pair.copy.sha256),
    ):
        if not path.is_file():
            return f"{what} is missing: {path}"
        if file_digest(path) != digest:
            return f"{what} changed on disk: {path}"
    return ""
