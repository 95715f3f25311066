"""Which pairs a training set gets, and why the others are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qhk.pairs.make import file_digest
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair
from qhk.pairs.strengthen import HumanReview, awaits_review

Unjudged = Literal["drop", "keep_strengthened", "keep"]


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What is left out: a pair, or an image that never became one (``group_id`` empty)."""

    group_id: str
    dataset: str
    example_id: str
    image: str
    stage: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The pairs that are kept, in the manifest's order, and everything that is not."""

    kept: list[Pair]
    dropped: list[Dropped]


def select_pairs(manifest: PairManifest, *, human_review: HumanReview, unjudged: Unjudged) -> Selection:
    """Every pair is kept or listed with its reason, and so is every image that no pair could be made of.

    Files are held against the digests of the manifest: a pair whose original or copy changed is dropped.
    """
    kept, dropped = [], []
    for pair in manifest:
        stage, reason = why_dropped(pair, human_review=human_review, unjudged=unjudged)
        if not reason:
            stage, reason = "build", _changed(manifest, pair)
        if reason:
            dropped.append(_dropped(pair, stage, reason))
        else:
            kept.append(pair)
    have = {f"{pair.source.dataset}/{pair.source.example_id}" for pair in manifest}
    for (stage, item), reason in manifest.failures.items():
        if stage == "degrade" and item not in have:
            dropped.append(_without_pair(item, f"no copy could be made: {reason}"))
    for item in manifest.asked:
        if item not in have and ("degrade", item) not in manifest.failures:
            dropped.append(_without_pair(item, "not degraded yet: run qhk data degrade to its end"))
    return Selection(kept=kept, dropped=dropped)


def _without_pair(item: str, reason: str) -> Dropped:
    dataset, _, example = item.partition("/")
    return Dropped(group_id="", dataset=dataset, example_id=example, image="", stage="degrade", reason=reason)


def why_dropped(pair: Pair, *, human_review: HumanReview, unjudged: Unjudged) -> tuple[str, str]:
    """The stage and the reason that keep a pair out; two empty texts for one that is kept.

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
    """(stage, reason) -> how many; details behind a colon do not divide a reason."""
    return Counter((item.stage, item.reason.partition(":")[0]) for item in dropped)


def _dropped(pair: Pair, stage: str, reason: str) -> Dropped:
    return Dropped(
        group_id=pair.group_id,
        dataset=pair.source.dataset,
        example_id=pair.source.example_id,
        image=pair.source.path,
        stage=stage,
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
