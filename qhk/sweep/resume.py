"""``qhk sweep resume``: starts what a sweep lacks, from its frozen settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qhk.config.catalogue import Catalogue
from qhk.config.compose import compose_launcher
from qhk.errors import UserError
from qhk.plain import print
from qhk.settings.sweep import LauncherSettings, parse_launcher
from qhk.sweep.commands import chosen_runs
from qhk.sweep.launch import launch_plan, start, with_current_code
from qhk.sweep.manifest import Manifest, read_manifest
from qhk.sweep.plan import plan_sweep
from qhk.sweep.sharing import Task
from qhk.sweep.states import RunView, read_states, sweep_lock
from qhk.tracking.status import RunState


def resume_sweep(
    folder: Path,
    *,
    cell: str | None,
    seed: int | None,
    current_code: bool,
    overrides: Sequence[str],
    catalogue: Catalogue,
    task: Task,
) -> int:
    """Start every chosen run that is not done and not active; return the exit code of ``start``.

    A config is composed only where ``overrides`` change the launcher, or a search draws its next round.
    """
    lock = sweep_lock(folder)
    try:
        manifest = read_manifest(folder)
        manifest = replace(manifest, launcher=launcher_of(manifest.launcher, overrides, catalogue))
        views = chosen_runs(read_states(manifest), cell=cell, seed=seed)
        if manifest.trials_left and cell is None and seed is None:
            views = _without_failed_trials(views)
        if current_code:
            manifest, views = with_current_code(manifest, views)
        if manifest.search is None or any(view.resumable or view.unreachable for view in views):
            return start(manifest, views, lock=lock)
    finally:
        lock.release()
    return _continue_search(manifest, catalogue, task)


def _without_failed_trials(views: Sequence[RunView]) -> list[RunView]:
    """Leave out failed trials: that they failed is their result."""
    failed = sorted({view.run.cell for view in views if view.state is RunState.FAILED and view.resumable})
    if failed:
        print(f"failed trials count as such in the search: {', '.join(failed)}; cell=NAME starts one again")
    return [view for view in views if view.run.cell not in failed]


def _continue_search(manifest: Manifest, catalogue: Catalogue, task: Task) -> int:
    """Launch a search's next round, if there is one, and return the exit code.

    Raises UserError where the words that the search was launched with compose no more, as those of an earlier
    version may not.
    """
    words = [word for word in manifest.overrides if not word.startswith(("study=", "paths.outputs="))]
    words += [f"study={manifest.name}", f"paths.outputs={manifest.folder.parents[1]}"]
    try:
        plan = plan_sweep([*words, *(f"seed={seed}" for seed in manifest.seeds)], catalogue)
    except UserError as error:
        raise UserError(
            f"sweep {manifest.name}: no further trial can be drawn with the words it was launched with "
            f"({error}); launch it again with qhk train, the words mended and study={manifest.name}"
        ) from None
    return launch_plan(replace(plan, launcher=manifest.launcher), task)


def launcher_of(own: LauncherSettings, overrides: Sequence[str], catalogue: Catalogue) -> LauncherSettings:
    """Return the sweep's own launcher with the keys that ``overrides`` give, or the one that they name."""
    words = [word.lstrip("+~") for word in overrides]
    given = {
        word.removeprefix("hydra.launcher.").partition("=")[0].partition(".")[0]
        for word in words
        if word.startswith("hydra.launcher.")
    }
    names_one = any(word.startswith("hydra/launcher=") for word in words)
    if not given and not names_one:
        return own
    asked = list(overrides) if names_one else [f"hydra/launcher={own.form}", *overrides]
    composed = compose_launcher("sweep resume", asked, catalogue)
    if names_one:
        return parse_launcher(composed)
    return parse_launcher({**own.model_dump(), **{key: composed[key] for key in given if key in composed}})
