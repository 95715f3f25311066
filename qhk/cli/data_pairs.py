"""``qhk data degrade | filter | strengthen | build``: degraded pairs, step by step or in one chain."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qhk.cli.display import ConsoleDisplay
from qhk.cli.pair_judges import open_judge
from qhk.data.selection import require_split, select_training_data
from qhk.pairs.build import DATASET, TWINS, Built, build_set, count_reasons
from qhk.pairs.degrade import degrade_examples
from qhk.pairs.judge import Filtered, filter_pairs
from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.plan import Plan
from qhk.pairs.strengthen import awaits_review, strengthen_pairs
from qhk.pairs.training_set import unpack_set
from qhk.settings import CopySettings, Settings
from qhk.training.data import load_sets
from qhk.types import Example

COST_EVERY_S = 30.0
"""While a judge that costs money is asked, its cost so far is told this often."""


def run_degrade(settings: Settings) -> int:
    """0 after every training image has its pair; 1 where some could not be made. Raises ValueError."""
    plan = copy_plan(settings, settings.pairs.degrade, step="degrade")
    display = ConsoleDisplay()
    examples = training_examples(settings, display)
    manifest = open_pairs(_manifest_path(settings), create=True)
    with display.task("degrading") as progress:
        counts = degrade_examples(
            manifest, examples, plan=plan, workers=settings.pairs.workers, progress=progress
        )
    _print_kinds(manifest)
    print(f"degrade: {counts.made} pairs made, {counts.before} were there, {counts.failed} failed")
    _print_failures(manifest, "degrade", counts.failed)
    print(f"manifest: {manifest.path}")
    return 1 if counts.failed else 0


def run_filter(settings: Settings, overrides: list[str]) -> int:
    """0 after the judge was asked about every pair, 1 where it failed on some. Raises ValueError."""
    manifest = open_pairs(_manifest_path(settings))
    judge = open_judge(manifest, settings, overrides)
    endpoint = settings.pairs.filter.endpoint
    display = ConsoleDisplay()
    display.line(f"judge: {judge.name}")
    told = time.monotonic()

    with display.task("judging") as bar:

        def progress(number: int, total: int, cost: float) -> None:
            nonlocal told
            bar(number, total)
            if cost > 0.0 and time.monotonic() - told > COST_EVERY_S:
                told = time.monotonic()
                display.line(f"{number}/{total} judged, cost so far {cost:.4f}")

        done = filter_pairs(
            manifest,
            judge,
            limit=settings.pairs.filter.limit,
            price=(endpoint.price_input, endpoint.price_output),
            progress=progress,
        )
    _print_filtered(manifest, done)
    return 1 if done.failures else 0


def run_strengthen(settings: Settings) -> int:
    """0 after every pair that looks the same was degraded again; 1 where some failed. Raises ValueError."""
    pairs = settings.pairs
    plan = copy_plan(settings, pairs.strengthen, step="strengthen")
    manifest = open_pairs(_manifest_path(settings))
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
    _print_failures(manifest, "strengthen", done.failed)
    return 1 if done.failed else 0


def run_build(settings: Settings, overrides: list[str]) -> int:
    """0 after the set is built and read back; in a chain, after all steps. Raises ValueError."""
    pairs = settings.pairs
    folder = Path(pairs.build.output).expanduser()
    if pairs.build.unpack is not None:
        examples = unpack_set(folder / DATASET, images=Path(pairs.build.unpack).expanduser())
        print(f"unpacked: {len(examples)} originals and their copies below {pairs.build.unpack}")
        return 0
    worst = _run_chain(settings, overrides) if pairs.chain else 0
    manifest = open_pairs(_manifest_path(settings))
    built = build_set(manifest, folder, human_review=pairs.human_review, unjudged=pairs.build.unjudged)
    _print_built(manifest, built, human_review=pairs.human_review)
    return worst


def _run_chain(settings: Settings, overrides: list[str]) -> int:
    """The worst exit code of the steps before build; a failed pair is listed and does not end the chain."""
    print("chain: degrade, filter, strengthen, build; no person reviews (pairs.human_review=skipped)")
    codes = [run_degrade(settings), run_filter(settings, overrides), run_strengthen(settings)]
    if settings.pairs.rejudge:
        codes.append(run_filter(settings, overrides))
    return max(codes)


def copy_plan(settings: Settings, copies: CopySettings, *, step: str) -> Plan:
    """How a step makes copies. Raises ValueError naming the key where a kind or strength is not possible."""
    plan = Plan(
        kinds=tuple(copies.kinds),
        level=copies.level,
        strengths=settings.pairs.levels[copies.level],
        target=copies.target,
        tolerance=copies.tolerance,
        storage=copies.storage,
        seed=settings.seed,
    )
    plan.check(key=f"pairs.{step}")
    return plan


def training_examples(settings: Settings, display: ConsoleDisplay) -> Mapping[str, list[Example]]:
    """The images of the training split, by split; never a benchmark's.

    All of them, so that twins are there whatever part another seed holds back for validation; with
    ``loading.limit`` those that a run of these settings trains on.
    """
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


def _manifest_path(settings: Settings) -> Path:
    return Path(settings.pairs.manifest).expanduser()


def _print_kinds(manifest: PairManifest) -> None:
    table = _table("kind", "pairs", "strength", "SSIM lowest", "mean", "highest")
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


def _print_filtered(manifest: PairManifest, done: Filtered) -> None:
    same, different = done.verdicts.get("same", 0), done.verdicts.get("different", 0)
    failed = sum(done.failures.values())
    print(f"filter: {same} look the same, {different} differ, {failed} failed, {done.before} were judged")
    for reason, count in sorted(done.failures.items(), key=lambda item: -item[1])[:5]:
        print(f"  failed {count} times: {reason}")
    if failed:
        print("  failures are no answers; the same command asks again")
    if done.prompt_tokens or done.completion_tokens:
        print(f"  tokens: {done.prompt_tokens} in, {done.completion_tokens} out; cost {done.cost:.4f}")
    waiting = sum(awaits_review(pair, "required") for pair in manifest)
    print(f"  {waiting} pairs that the judge calls the same have not been seen by a person")


def _print_failures(manifest: PairManifest, step: str, failed: int) -> None:
    if not failed:
        return
    lines = [f"  {item}: {reason}" for (where, item), reason in manifest.failures.items() if where == step]
    print("\n".join(lines[-failed:][:5]))
    if failed > 5:
        print(f"  ... and {failed - 5} more; all stand in {manifest.path}")


def _print_built(manifest: PairManifest, built: Built, *, human_review: str) -> None:
    table = _table("step", "dropped because", "pairs")
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


def _table(*headings: str) -> Table:
    table = Table()
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 or "because" in heading else "right")
    return table
