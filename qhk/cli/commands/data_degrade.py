"""``qhk data degrade``: a degraded copy of every training image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qhk.cli.command import Command, Job
from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.plain import print
from qhk.settings.root import Settings

if TYPE_CHECKING:
    from qhk.training.display import Display
    from qhk.types import Example


def run(job: Job[None]) -> int:
    """Return 0 after every training image has its pair, 1 where some could not be made."""
    from qhk.pairs.degrade import degrade_examples
    from qhk.pairs.plan import copy_plan
    from qhk.training.display import ConsoleDisplay

    settings, display = job.settings, ConsoleDisplay()
    plan = copy_plan(settings, settings.pairs.degrade, step="degrade")
    examples = training_examples(settings, display)
    manifest = open_pairs(Path(settings.pairs.manifest), create=True)
    with display.task("degrading") as progress:
        counts = degrade_examples(
            manifest, examples, plan=plan, workers=settings.pairs.workers, progress=progress
        )
    _print_kinds(manifest)
    print(f"degrade: {counts.made} pairs made, {counts.before} were there, {counts.failed} failed")
    print("\n".join([*manifest.failure_lines("degrade", counts.failed), f"manifest: {manifest.path}"]))
    entries = [settings.dataset[name] for name in settings.data]
    roots = [str(Path(entry.root).resolve()) for entry in entries if entry.root and not entry.miniature]
    if roots:
        print(
            "originals: the next steps may read them where paths.datasets and dataset.*.root are "
            f"as here, or with 'pairs.roots={json.dumps(roots)}'"
        )
    return 1 if counts.failed else 0


def training_examples(settings: Settings, display: Display) -> Mapping[str, list[Example]]:
    """Return the images of the training split, by split; never a benchmark's.

    All of them, so that twins are there whatever part another seed holds back for validation; with
    ``loading.limit`` those that a run of these settings trains on.
    """
    from qhk.data.selection import require_split, select_training_data
    from qhk.training.data import load_sets

    data, loading = settings.data, settings.loading
    loaded = load_sets(settings, list(data), display)
    if loading.limit is None:
        parts = [require_split(loaded[name], loading.split, key="loading.split") for name in data]
        return {loading.split: [example for part in parts for example in part]}
    chosen = select_training_data(
        list(loaded.values()),
        weights=data,
        split=loading.split,
        validation_fraction=loading.validation_fraction,
        validation_limit=loading.validation_limit,
        limit=loading.limit,
        seed=settings.seed,
    )
    return {loading.split: [example for examples in chosen.train.values() for example in examples]}


def _print_kinds(manifest: PairManifest) -> None:
    from rich.console import Console

    from qhk.tables import Table

    table = Table("kind")
    for heading in ("pairs", "strength", "SSIM lowest", "mean", "highest"):
        table.add_column(heading, justify="right")
    kinds: dict[str, list[tuple[float, float]]] = {}
    for pair in manifest:
        first = pair.copies[0]
        assert first.ssim is not None
        kinds.setdefault(first.type, []).append((first.degradations[0].strength, first.ssim))
    for kind, rows in sorted(kinds.items()):
        strengths, ssims = zip(*rows, strict=True)
        low, high = min(strengths), max(strengths)
        span = f"{low:g}" if low == high else f"{low:.3g} to {high:.3g}"
        mean = sum(ssims) / len(ssims)
        table.add_row(kind, str(len(rows)), span, f"{min(ssims):.3f}", f"{mean:.3f}", f"{max(ssims):.3f}")
    Console(highlight=False).print(table)


COMMAND = Command(
    sentence="Makes a degraded copy of every training image, with where it came from.",
    recipes=(
        ("of an experiment's images", "qhk data degrade experiment=q_hawkeye paths.datasets=/data"),
        ("the second published strengths", "qhk data degrade data=koniq pairs.degrade.level=stage_4"),
        ("the wider family, all at one SSIM", "qhk data degrade data=koniq pairs=further"),
    ),
    run=run,
)
