"""Makes a degraded copy of every image and records its source."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.pairs.make import CopyDone, CopyJob, in_order, run_job
from qhk.pairs.manifest import PairManifest
from qhk.pairs.plan import Plan
from qhk.pairs.records import Copy, asked_row, failure_row, group_id, pair_row, settings_row, source_of
from qhk.types import Example

Progress = Callable[[int, int], None]

FOLDER = "copies"
"""Below the manifest: where copies lie."""

FLUSH_S, FLUSH_ROWS = 2.0, 64
"""Records wait for at most this long, or this many; what a killed process had not written is made again."""


@dataclass(frozen=True, kw_only=True)
class CopyCounts:
    """What a step did now (``made``, ``failed``) and found done already (``before``)."""

    made: int
    failed: int
    before: int


def degrade_examples(
    manifest: PairManifest,
    examples: Mapping[str, Sequence[Example]],
    *,
    plan: Plan,
    workers: int,
    progress: Progress,
) -> CopyCounts:
    """Make a pair of every example that has none yet, and return how many were made, failed and found.

    ``examples`` are by split; the result does not depend on ``workers``.

    An image that cannot be read is recorded as a failure, and tried again next time. Raises
    ``UserError`` where the manifest was begun with other values, an example shows several pictures, or
    two are one.
    """
    begin_step(manifest, step="degrade", key="pairs.degrade", values=plan.values())
    jobs, by_group = [], {}
    for split, part in examples.items():
        for example in part:
            _refuse_several(example)
            group = group_id(example.dataset, example.id)
            if group in by_group:
                raise UserError(f"pairs: {item_of(example)} occurs twice: keep one of them")
            by_group[group] = (split, example)
            if group not in manifest.pairs:
                jobs.append(_job(example, group, manifest, plan))

    asked = [job.item for job in jobs if job.item not in manifest.asked]
    if asked:  # recorded first, so that an interrupted run leaves no image unlisted
        manifest.append([asked_row(asked)])

    def row(done: CopyDone) -> dict[str, Any]:
        split, example = by_group[done.job.group_id]
        assert done.path is not None
        source = source_of(
            example,
            split=split,
            path=manifest.relative(example.image),
            sha256=done.source_sha256,
            size=done.size,
        )
        return pair_row(done.job.group_id, source, copy_of(done, manifest))

    before = len(by_group) - len(jobs)
    made, failed = make_copies(manifest, jobs, step="degrade", row=row, workers=workers, progress=progress)
    return CopyCounts(made=made, failed=failed, before=before)


def make_copies(
    manifest: PairManifest,
    jobs: Sequence[CopyJob],
    *,
    step: str,
    row: Callable[[CopyDone], dict[str, Any]],
    workers: int,
    progress: Progress,
) -> tuple[int, int]:
    """Return how many copies were made and how many failed; each is recorded, by ``row`` or as a failure."""
    rows: list[dict[str, Any]] = []
    made = failed = 0
    last = time.monotonic()
    progress(0, len(jobs))
    results = in_order(run_job, jobs, workers=workers)
    try:
        for done in results:
            if done.failure:
                failed += 1
                rows.append(failure_row(step=step, item=done.job.item, reason=done.failure))
            else:
                made += 1
                rows.append(row(done))
            if len(rows) >= FLUSH_ROWS or time.monotonic() - last > FLUSH_S:
                # taken out first: what a full disk refused, tried again below, would hide the cause
                ready, rows, last = rows, [], time.monotonic()
                manifest.append(ready)
            progress(made + failed, len(jobs))
    finally:
        if rows:
            manifest.append(rows)
    return made, failed


def begin_step(manifest: PairManifest, *, step: str, key: str, values: Mapping[str, Any]) -> None:
    """Record the values a step works with; raises ``UserError`` where it began with others."""
    known = manifest.settings.get(step)
    if known is None:
        manifest.append([settings_row(step=step, values=values)])
        return
    for name in [*values, *known]:
        if known.get(name) != values.get(name):
            raise UserError(
                f"{key}: {manifest.path} was begun with {name} {known.get(name)}, now {values.get(name)}: "
                "keep the old value, or give another pairs.manifest"
            )


def copy_of(done: CopyDone, manifest: PairManifest) -> Copy:
    """Return the record of a copy that was made."""
    assert done.path is not None
    return Copy(
        path=manifest.relative(done.path),
        sha256=done.sha256,
        degradations=done.degradations,
        ssim=done.ssim,
    )


def item_of(example: Example) -> str:
    """Return the name of an image in failures: ``dataset/id``."""
    return f"{example.dataset}/{example.id}"


def _job(example: Example, group: str, manifest: PairManifest, plan: Plan) -> CopyJob:
    return CopyJob(
        item=item_of(example),
        example_id=example.id,
        group_id=group,
        source=example.image,
        start=example.image,
        done=(),
        folder=copies_folder(manifest, example.dataset),
        plan=plan,
    )


def copies_folder(manifest: PairManifest, dataset: str) -> Path:
    """Return the folder of the copies of a set's images lie."""
    return manifest.folder / FOLDER / dataset


def _refuse_several(example: Example) -> None:
    if example.more_images:
        raise UserError(
            f"pairs: {item_of(example)} shows {len(example.images)} pictures; pairs are made of single "
            "ones: choose a set for task=score"
        )
