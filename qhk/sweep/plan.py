"""From a command line with ``sweep=NAME``, or with ``-m``, to the runs that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from qhk.config.catalogue import Catalogue, choice_of
from qhk.config.compose import compose_config, compose_launcher, plain_config
from qhk.config.overrides import cells, expand, parse_override, refuse_repeated
from qhk.config.training import training_settings
from qhk.config.unused import refuse_unused_strengths
from qhk.errors import UserError
from qhk.settings.identity import difference, run_directory, run_id, run_name
from qhk.settings.root import Settings
from qhk.settings.sweep import LauncherSettings, SearchSettings, SweepSettings, parse_launcher, parse_sweep
from qhk.settings.views import reward_modules, stage_views, task_views
from qhk.sweep.manifest import Manifest, SweepRun
from qhk.tracking.status import RunState


@dataclass(frozen=True, kw_only=True)
class PlannedRun(SweepRun):
    """A run before it starts. ``state`` is what an earlier launch left in its directory, None for nothing.

    ``code`` is "" until the run was compared with others.
    """

    settings: Settings
    state: RunState | None

    def frozen(self) -> SweepRun:
        """Return the run as the manifest keeps it."""
        values = {field.name: getattr(self, field.name) for field in fields(SweepRun)}
        return SweepRun(**{**values, "directory": self.directory.absolute()})


def plan_run(*, cell: str, changes: Sequence[str], settings: Settings) -> PlannedRun:
    """Return the run in its own directory, not yet compared with any other."""
    return PlannedRun(
        cell=cell,
        seed=settings.seed,
        changes=tuple(changes),
        settings=settings,
        run_id=run_id(settings),
        modules=tuple(sorted(reward_modules(settings))),
        code="",
        directory=run_directory(settings),
        same_as="",
        state=None,
    )


def refuse_changed(sweep: Manifest, runs: Sequence[PlannedRun]) -> None:
    """Raise UserError where a run of the sweep on disk would now compute something else.

    Ids of runs that an earlier version froze differ although the runs are the same: their frozen settings
    tell.
    """
    on_disk = {run.label: run for run in sweep.runs}
    for run in runs:
        before = on_disk.get(run.label)
        if before is None or before.run_id == run.run_id:
            continue
        changed = difference(sweep.settings(before), run.settings)
        if changed:
            raise UserError(
                f"{run.label} is run id {before.run_id} in the sweep on disk and {run.run_id} now "
                f"({changed}): give the values that it had, or choose another study=NAME or fresh=true"
            )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A named cell: its own overrides, and all overrides of its runs but the seed."""

    name: str
    changes: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What was asked for: the sweep's name, its runs, and how they are to be started.

    ``words`` are the overrides that all cells have in common; a search draws further cells with them.
    """

    name: str
    words: tuple[str, ...]
    seeds: tuple[int, ...]
    launcher: LauncherSettings
    search: SearchSettings | None
    runs: tuple[PlannedRun, ...]
    outputs: Path
    dry_run: bool
    fresh: bool
    catalogue: Catalogue


def plan_sweep(overrides: Sequence[str], catalogue: Catalogue) -> SweepPlan:
    """Return the plan of ``qhk train sweep=NAME ...``. Raises UserError for any mistake in any cell."""
    if any(_key(word) == "name" for word in overrides):
        raise UserError("name: the cells of a sweep name its runs; study=NAME names the sweep")
    common, seeds = take_seeds(overrides, catalogue)
    variants = expand(common, catalogue)
    sweep = parse_sweep(plain_config(compose_config("train", variants[0], catalogue))["sweep"])
    chosen = choice_of("sweep", common)
    assert chosen is not None
    study = choice_of("study", common) or sweep_name(chosen, common)
    swept = {_key(word) for word in common if parse_override(word).is_sweep_override()}
    found = [
        _cell(
            run_name(name, [word for word in variant if _key(word) in swept]), variant, changes, study=study
        )
        for variant in variants
        for name, changes in sweep.cells.items()
    ]
    return _plan(study, common, variants[0], tuple(seeds or sweep.seeds), found, sweep, catalogue)


def plan_multirun(overrides: Sequence[str], catalogue: Catalogue) -> SweepPlan:
    """Return the plan of ``qhk train -m ...``: each combination of the swept values but the seeds is a cell.

    A single run is a plan of one cell, which names the plan. Each run has the directory that it would have
    without a plan; its cell is named by what varies. Raises UserError for any mistake in any cell.
    """
    common, seeds = take_seeds(overrides, catalogue)
    experiment, variants = choice_of("experiment", common), expand(common, catalogue)
    found = []
    for words in variants:
        name = choice_of("name", words) or run_name(choice_of("experiment", words), words)
        changes = tuple(word for word in words if word not in common)
        varying = choice_of("name", changes) or run_name(choice_of("experiment", changes) or "", changes)
        cell = varying if len(variants) > 1 else name
        found.append(Cell(name=cell, changes=changes, words=(*words, f"name={name}")))
    if len(found) > 1 or len(seeds) > 1:
        name = run_name("__".join(filter(None, ["multirun", experiment])), overrides)
    seeds = seeds or [compose_config("train", variants[0], catalogue).seed]
    return _plan(name, common, variants[0], tuple(seeds), found, None, catalogue)


def plan_trials(plan: SweepPlan, drawn: Mapping[str, Mapping[str, object]]) -> SweepPlan:
    """Return the plan with the runs of a search's drawn values, given as cell -> key -> value."""
    found = [
        _cell(
            name,
            plan.words,
            [f"{key}={override_text(value)}" for key, value in values.items()],
            study=plan.name,
        )
        for name, values in drawn.items()
    ]
    return replace(
        plan, runs=tuple(run for cell in found for run in _cell_runs(cell, plan.seeds, plan.catalogue))
    )


def take_seeds(overrides: Sequence[str], catalogue: Catalogue) -> tuple[list[str], list[int]]:
    """Return the overrides without those of ``seed``, and the seeds that they name."""
    rest = [word for word in overrides if _key(word) != "seed"]
    named = [text for word in overrides if _key(word) == "seed" for text in cells(word, catalogue)]
    seeds = []
    for text in named:
        value = text.partition("=")[2]
        if not value.isdigit():
            raise UserError(f"seed: must be a whole number of at least 0, got {value}")
        seeds.append(int(value))
    return rest, list(dict.fromkeys(seeds))


def sweep_name(sweep: str, overrides: Sequence[str]) -> str:
    """Return ``modules__q_hawkeye__scale-miniature``: the sweep, the experiment and what was changed."""
    named = [word for word in overrides if not _key(word).startswith("sweep.")]
    name = run_name("__".join(filter(None, [sweep, choice_of("experiment", named)])), named)
    return name.replace("+", "-")  # a study is named without it


def _validates(settings: Settings) -> bool:
    """Return whether any task of any stage holds images back for validation."""
    views = [view for stage in stage_views(settings) for view in task_views(stage.settings).values()]
    return any(view.loading.validation_fraction > 0 for view in views)


def _plan(
    name: str,
    common: Sequence[str],
    first: Sequence[str],
    seeds: tuple[int, ...],
    found: Sequence[Cell],
    sweep: SweepSettings | None,
    catalogue: Catalogue,
) -> SweepPlan:
    runs = [run for cell in found for run in _cell_runs(cell, seeds, catalogue)]
    refuse_unused_strengths(
        (cell.words, partial(compose_config, "train", cell.words, catalogue)) for cell in found
    )
    settings = runs[0].settings if runs else training_settings(first, seeds[:1], catalogue)[0]
    if sweep is not None and sweep.search is not None and not _validates(settings):
        raise UserError(
            f"loading.validation_fraction: 0 leaves sweep.search.metric {sweep.search.metric} nothing to be "
            "measured on; hold a part back, such as 0.05"
        )
    return SweepPlan(
        name=name,
        words=tuple(common),
        seeds=seeds,
        launcher=parse_launcher(compose_launcher("train", first, catalogue)),
        search=sweep.search if sweep is not None else None,
        runs=tuple(runs),
        outputs=Path(settings.paths.outputs),
        dry_run=settings.dry_run,
        fresh=settings.fresh,
        catalogue=catalogue,
    )


def _cell_runs(cell: Cell, seeds: Sequence[int], catalogue: Catalogue) -> list[PlannedRun]:
    """Return the runs of a cell. Raises UserError that names the cell."""
    try:
        found = training_settings(cell.words, seeds, catalogue)
    except UserError as error:
        raise UserError(f"cell {cell.name}: {error}") from None
    return [plan_run(cell=cell.name, changes=cell.changes, settings=settings) for settings in found]


def _cell(name: str, words: Sequence[str], changes: Sequence[str], *, study: str) -> Cell:
    """Return the cell of the common overrides and its own changes, which replace those of the same key.

    Raises UserError for a key that has two values among the changes.
    """
    try:
        refuse_repeated(changes)
    except UserError as error:
        raise UserError(f"cell {name}: {error}") from None
    changed = [_key(change) for change in changes]
    kept = [
        word
        for word in words
        if _key(word) != "study"
        and not any(_key(word) == key or _key(word).startswith(f"{key}.") for key in changed)
    ]
    return Cell(name=name, changes=tuple(changes), words=(*kept, *changes, f"study={study}", f"name={name}"))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def override_text(value: object) -> str:
    """Return a drawn value as an override's text."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
