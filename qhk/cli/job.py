"""From a command and its overrides to a job: composed, and checked into typed settings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qhk.cli.command import Command, Job, LightCommand, LightJob
from qhk.cli.commands import COMMANDS
from qhk.config.catalogue import Catalogue, choice_of
from qhk.config.check import checked_settings
from qhk.config.compose import compose_config, overruled_choices, plain_config
from qhk.config.labels import labelled
from qhk.config.overrides import expand
from qhk.config.unused import refuse_overruled_by_stages, refuse_unused_strengths
from qhk.errors import UserError
from qhk.plain import print
from qhk.settings.data import DatasetSettings
from qhk.settings.identity import run_name
from qhk.settings.problems import validated
from qhk.settings.root import Settings


def prepare(
    command: str, overrides: Sequence[str], catalogue: Catalogue, positionals: Sequence[str] = ()
) -> Job[Any]:
    """Return the checked job of a command and its overrides. Raises UserError for any mistake."""
    config = compose_config(command, overrides, catalogue)
    refuse_unused_strengths([(overrides, lambda: config)])
    plain = plain_config(config)
    if plain.pop("sweep", None) is not None:
        raise UserError(
            f"sweep={choice_of('sweep', overrides)}: has no effect on qhk {command}; leave it out"
        )
    kind = COMMANDS[command]
    assert isinstance(kind, Command)
    own = {key: plain.pop(key) for key in kind.request.model_fields if key in plain} if kind.request else {}
    request = validated(kind.request, own) if kind.request else None
    settings = checked_settings(command, labelled(plain, overrides, catalogue))
    if command == "train":
        refuse_overruled_by_stages(overrides, config, catalogue)
    if settings.name is None:
        name = run_name(choice_of("experiment", overrides), overrides)
        settings = settings.model_copy(update={"name": name})
    return Job(
        settings=settings,
        datasets={name: DatasetSettings.model_validate(entry) for name, entry in plain["dataset"].items()},
        request=request,
        positionals=tuple(positionals),
        overrides=tuple(overrides),
        notes=(
            *overruled_choices(command, overrides, config, catalogue),
            *_loading_note(settings, overrides),
        ),
    )


def _loading_note(settings: Settings, overrides: Sequence[str]) -> list[str]:
    """Return a line where sets that the user chose are read as miniature ones, which nobody chose."""
    chosen = [name for name in settings.data if not settings.dataset[name].miniature]
    scale = choice_of("scale", overrides)
    # An experiment reads full-size sets and the other scales choose a loading themselves.
    full_size = scale not in {None, "full", "miniature"} or (
        choice_of("experiment", overrides) is not None and scale != "miniature"
    )
    said = any(text.lstrip("+~").startswith(("loading=", "loading.")) for text in overrides)
    if not chosen or full_size or said:
        return []
    return [
        f"{', '.join(chosen)}: read with loading=miniature, as the default's sets are; write loading=default "
        "for published sets, loading=small for small ones of your own"
    ]


def prepare_light(
    command: str, overrides: Sequence[str], catalogue: Catalogue, positionals: Sequence[str]
) -> LightJob[Any]:
    """Return the job of a light command, whose whole config is its request. Raises UserError."""
    kind = COMMANDS[command]
    assert isinstance(kind, LightCommand)
    return LightJob(
        request=validated(kind.request, plain_config(compose_config(command, overrides, catalogue))),
        positionals=tuple(positionals),
        overrides=tuple(overrides),
        catalogue=catalogue,
    )


def run_each(
    command: str,
    overrides: Sequence[str],
    catalogue: Catalogue,
    positionals: Sequence[str],
    *,
    config_dirs: Sequence[Path],
) -> int:
    """Check every job of a multirun, then run each in a process of its own, and return the worst exit code.

    A killed one counts as 1; one that fails stops no other.
    """
    worst, jobs = 0, expand(overrides, catalogue)
    if isinstance(COMMANDS[command], Command):
        for words in jobs:
            prepare(command, words, catalogue)
    folders = [f"--config-dir={folder}" for folder in config_dirs]
    program = [sys.executable, "-m", "qhk.cli.main", *command.split(), *folders, *positionals]
    for number, words in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] qhk {command} {' '.join(words)}", flush=True)
        code = subprocess.run([*program, *words], check=False).returncode
        worst = max(worst, 1 if code < 0 else code)
    return worst
