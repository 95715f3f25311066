"""``qhk data strengthen``: pairs that look the same, degraded again."""

from __future__ import annotations

from qhk.cli.command import Command, Job
from qhk.pairs.manifest import open_manifest
from qhk.plain import print


def run(job: Job[None]) -> int:
    """Return 0 after every pair that looks the same was degraded again, 1 where some failed."""
    from qhk.pairs.plan import copy_plan
    from qhk.pairs.strengthen import strengthen_pairs
    from qhk.training.display import ConsoleDisplay

    pairs = job.settings.pairs
    plan = copy_plan(job.settings, pairs.strengthen, step="strengthen")
    manifest = open_manifest(job.settings)
    with ConsoleDisplay().task("strengthening") as progress:
        done = strengthen_pairs(
            manifest,
            plan=plan,
            human_review=pairs.human_review,
            max_degradations=pairs.strengthen.max_degradations,
            workers=pairs.workers,
            progress=progress,
        )
    print(
        f"strengthen: {done.made} pairs degraded again, {done.failed} failed, "
        f"{done.waiting} wait for review, {done.spent} look the same after "
        f"{pairs.strengthen.max_degradations} degradations"
    )
    if done.waiting:
        print("review them with qhk data review, or set pairs.human_review=skipped")
    for line in manifest.failure_lines("strengthen", done.failed):
        print(line)
    return 1 if done.failed else 0


COMMAND = Command(
    sentence="Degrades again, in files of their own, the pairs that stayed imperceptible.",
    recipes=(
        ("what people confirmed in review", "qhk data strengthen"),
        ("on the judge's word alone", "qhk data strengthen pairs.human_review=skipped"),
        ("to a target", "qhk data strengthen pairs.strengthen.target=0.7"),
    ),
    run=run,
)
