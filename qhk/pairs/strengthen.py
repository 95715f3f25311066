"""Adds a second, different degradation to pairs that still look the same, in files of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from qhk.pairs.degrade import begin_step, copies_folder, copy_of, make_copies
from qhk.pairs.make import CopyDone, CopyJob
from qhk.pairs.manifest import PairManifest
from qhk.pairs.plan import Plan
from qhk.pairs.records import Pair, strengthened_row

HumanReview = Literal["required", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Strengthened:
    """What the step did: copies made and failed; pairs not touched, by why."""

    made: int
    failed: int
    waiting: int
    spent: int


def strengthen_pairs(
    manifest: PairManifest,
    *,
    plan: Plan,
    human_review: HumanReview,
    max_degradations: int,
    workers: int,
    progress: Callable[[int, int], None],
) -> Strengthened:
    """Degrade every pair once more that looks the same and has fewer than ``max_degradations``.

    People's word beats the judge's. With ``required`` review a pair that only a judge calls the same waits
    for a person. The kind is drawn from those the pair has not had; earlier files stay as they are.
    Raises ``UserError`` where the manifest's strengthening began with other values.
    """
    begin_step(manifest, step="strengthen", key="pairs.strengthen", values=plan.values())
    alike = [pair for pair in manifest if pair.verdict == "same"]
    seen = [pair for pair in alike if not awaits_review(pair, human_review)]
    chosen = [pair for pair in seen if pair.copy.version < max_degradations]
    jobs = [_job(pair, manifest, plan) for pair in chosen]

    def row(done: CopyDone) -> dict[str, object]:
        return strengthened_row(done.job.group_id, copy_of(done, manifest))

    made, failed = make_copies(manifest, jobs, step="strengthen", row=row, workers=workers, progress=progress)
    return Strengthened(
        made=made, failed=failed, waiting=len(alike) - len(seen), spent=len(seen) - len(chosen)
    )


def awaits_review(pair: Pair, human_review: HumanReview) -> bool:
    """Return whether a person has still to confirm that the newest copy looks the same."""
    judged_same = pair.judgement is not None and pair.judgement.verdict == "same"
    return human_review == "required" and pair.human is None and (judged_same or pair.disputed)


def _job(pair: Pair, manifest: PairManifest, plan: Plan) -> CopyJob:
    return CopyJob(
        item=pair.group_id,
        example_id=pair.source.example_id,
        group_id=pair.group_id,
        source=manifest.source_path(pair),
        start=manifest.copy_path(pair),
        done=pair.copy.degradations,
        folder=copies_folder(manifest, pair.source.dataset),
        plan=plan,
    )
