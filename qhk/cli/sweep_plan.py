"""From a command line with ``sweep=NAME``, or with ``-m``, to the runs that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qhk.cli.job import prepare_seeds
from qhk.config.catalogue import Catalogue
from qhk.config.compose import choice_of, compose_config, compose_launcher, plain_config
from qhk.config.overrides import cells, expand, parse_override
from qhk.errors import UserError
from qhk.settings import Settings, run_name
from qhk.settings.sweep import LauncherSettings, SearchSettings, SweepSettings, parse_launcher, parse_sweep
from qhk.sweep.plan import PlannedRun, plan_run


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A named cell, its own overrides, and all words that its runs are composed from, but the seed."""

    name: str
    changes: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What was asked for: the sweep's name, its runs, and how they are to be started.

    ``words`` are what every cell has in common; a search makes further cells from them.
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


def plan_sweep(overrides: Sequence[str], catalogue: Catalogue) -> SweepPlan:
    """The plan of ``qhk train sweep=NAME ...``. Raises ValueError, one line, for any mistake in any cell."""
    if any(_key(word) == "name" for word in overrides):
        raise UserError("name: the cells of a sweep name its runs; study=NAME names the sweep")
    common, seeds = take_seeds(overrides, catalogue)
    variants = expand(common, catalogue)
    sweep = parse_sweep(plain_config(compose_config("train", variants[0], catalogue))["sweep"])
    chosen = choice_of("sweep", common)
    assert chosen is not None
    study = choice_of("study", common) or sweep_name(chosen, common)
    swept = [word for word in common if parse_override(word).is_sweep_override()]
    found = []
    for variant in variants:
        own = [word for word in variant if _key(word) in {_key(text) for text in swept}]
        for name, changes in sweep.cells.items():
            found.append(_cell(run_name(name, own), variant, changes, study=study))
    return _plan(study, common, tuple(seeds or sweep.seeds), found, sweep, catalogue)


def plan_multirun(overrides: Sequence[str], catalogue: Catalogue) -> SweepPlan:
    """The plan of ``qhk train -m ...``: every combination of the swept values is a cell, seeds apart."""
    common, seeds = take_seeds(overrides, catalogue)
    experiment = choice_of("experiment", common)
    found = []
    for words in expand(common, catalogue):
        name = choice_of("name", words) or run_name(choice_of("experiment", words), words)
        own = [word for word in words if word not in common]
        found.append(Cell(name=name, changes=tuple(own), words=(*words, f"name={name}")))
    name = run_name("__".join(filter(None, ["multirun", experiment])), overrides)
    return _plan(name, common, tuple(seeds or (0,)), found, None, catalogue)


def search_cells(plan_words: Sequence[str], study: str, drawn: dict[str, dict[str, object]]) -> list[Cell]:
    """The cells of drawn values: name -> key -> value."""
    return [
        _cell(
            name, plan_words, [f"{key}={override_text(value)}" for key, value in values.items()], study=study
        )
        for name, values in drawn.items()
    ]


def cell_runs(cell: Cell, seeds: Sequence[int], catalogue: Catalogue) -> list[PlannedRun]:
    """The runs of a cell, composed once for all seeds. Raises ValueError that names the cell."""
    try:
        found: list[Settings] = prepare_seeds(cell.words, seeds, catalogue)
    except ValueError as error:
        raise UserError(f"cell {cell.name}: {error}") from None
    return [plan_run(cell=cell.name, changes=cell.changes, settings=settings) for settings in found]


def take_seeds(overrides: Sequence[str], catalogue: Catalogue) -> tuple[list[str], list[int]]:
    """The overrides without those of ``seed``, and the seeds they name, none for none."""
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
    """``modules__q_hawkeye__scale-miniature``: the sweep, the experiment and what was changed about it."""
    told = [word for word in overrides if not _key(word).startswith("sweep.")]
    return run_name("__".join(filter(None, [sweep, choice_of("experiment", told)])), told)


def _plan(
    name: str,
    common: Sequence[str],
    seeds: tuple[int, ...],
    found: Sequence[Cell],
    sweep: SweepSettings | None,
    catalogue: Catalogue,
) -> SweepPlan:
    runs = [run for cell in found for run in cell_runs(cell, seeds, catalogue)]
    probe = runs[0].settings if runs else prepare_seeds(expand(common, catalogue)[0], seeds[:1], catalogue)[0]
    return SweepPlan(
        name=name,
        words=tuple(common),
        seeds=seeds,
        launcher=parse_launcher(compose_launcher("train", expand(common, catalogue)[0], catalogue)),
        search=sweep.search if sweep is not None else None,
        runs=tuple(runs),
        outputs=Path(probe.paths.outputs),
        dry_run=probe.dry_run,
        fresh=probe.fresh,
    )


def _cell(name: str, words: Sequence[str], changes: Sequence[str], *, study: str) -> Cell:
    """The cell's overrides after the common ones, which give way where both speak of the same."""
    decided = [_key(change) for change in changes]
    kept = [word for word in words if not _is_decided(_key(word), decided) and _key(word) != "study"]
    return Cell(name=name, changes=tuple(changes), words=(*kept, *changes, f"study={study}", f"name={name}"))


def _is_decided(key: str, decided: Sequence[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in decided)


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def override_text(value: object) -> str:
    """A drawn value as an override's text."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
