"""``qhk data build``: the training set of pairs, from the manifest or with all steps before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qhk.cli.command import Command, Job
from qhk.cli.commands import data_degrade, data_filter, data_strengthen
from qhk.pairs.manifest import open_manifest
from qhk.plain import print

if TYPE_CHECKING:
    from qhk.pairs.build import Built


def run(job: Job[None]) -> int:
    """Return 0 after the set is built and read back; in a chain, the worst exit code of all steps."""
    from qhk.pairs.build import DATASET, build_set
    from qhk.pairs.training_set import unpack_set

    pairs = job.settings.pairs
    folder = Path(pairs.build.output)
    if pairs.build.unpack is not None:
        examples = unpack_set(folder / DATASET, images=Path(pairs.build.unpack))
        print(f"unpacked: {len(examples)} originals and their copies below {pairs.build.unpack}")
        return 0
    worst = _run_chain(job) if pairs.chain else 0
    manifest = open_manifest(job.settings)
    built = build_set(
        manifest,
        folder,
        human_review=pairs.human_review,
        unjudged=pairs.build.unjudged,
        fresh=job.settings.fresh,
    )
    _print_built(built, human_review=pairs.human_review)
    return worst


def _run_chain(job: Job[None]) -> int:
    """Return the worst exit code of the steps before this one; pairs that fail do not end the chain."""
    print("chain: degrade, filter, strengthen, build; no person reviews (pairs.human_review=skipped)")
    codes = [data_degrade.run(job), data_filter.run(job), data_strengthen.run(job)]
    if job.settings.pairs.rejudge:
        codes.append(data_filter.run(job))
    return max(codes)


def _print_built(built: Built, *, human_review: str) -> None:
    from rich.console import Console

    from qhk.pairs.build import DATASET, TWINS, count_reasons
    from qhk.tables import Table

    table = Table("step", "dropped because")
    table.add_column("pairs", justify="right")
    for (step, reason), count in sorted(count_reasons(built.selection.dropped).items()):
        table.add_row(step, reason, str(count))
    if built.selection.dropped:
        Console(highlight=False).print(table)
    kept, dropped = len(built.selection.kept), len(built.selection.dropped)
    strengthened = sum(pair.copy.version > 1 for pair in built.selection.kept)
    state = "was built before" if built.before else "built and read back, bytes equal"
    print(f"build: {kept} pairs kept ({strengthened} strengthened), {dropped} dropped; {state}")
    if human_review == "skipped":
        print("no person reviewed these pairs (pairs.human_review=skipped)")
    print(f"dataset: {built.folder / DATASET}")
    print(f"train on it: twin=manifest twin.missing=leave_out twin.manifest={built.folder / TWINS}")


COMMAND = Command(
    sentence="Builds the training set of pairs, reads it back, and lists what was left out and why.",
    recipes=(
        ("from the manifest", "qhk data build pairs.build.output=sets/koniq_pairs"),
        (
            "all stages in one go, without a person",
            "qhk data build experiment=q_hawkeye pairs.chain=true pairs.human_review=skipped",
        ),
        ("the images of a built set, as files", "qhk data build pairs.build.unpack=images"),
    ),
    run=run,
)
