"""Splits a command line into command, flags, overrides and positionals, before Hydra sees any of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qhk.cli.command import Command, Job, LightCommand
from qhk.cli.data import DATA_COMMANDS
from qhk.cli.requests import EvaluateRequest, ScoreRequest
from qhk.cli.sweep import SWEEP_COMMANDS
from qhk.errors import UserError
from qhk.settings.base import expand_home
from qhk.settings.problems import suggestion

Cfg = Literal["job"]
FLAGS = ("-h", "--help", "-m", "--multirun", "-c", "--cfg", "--resolve")


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A command line in its parts; ``command`` is None for the general help."""

    command: str | None
    overrides: tuple[str, ...]
    positionals: tuple[str, ...]
    help: bool
    multirun: bool
    cfg: Cfg | None
    resolve: bool


def start_train(job: Job, positionals: Sequence[str]) -> int:
    """The exit code of a training run."""
    from qhk.cli.train import run

    return run(job.settings, list(job.overrides))


def start_evaluate(job: Job, positionals: Sequence[str]) -> int:
    """The exit code of an evaluation."""
    from qhk.cli.evaluate import run

    assert isinstance(job.request, EvaluateRequest)
    return run(job.settings, list(job.overrides), job.request, datasets=job.datasets)


def start_score(job: Job, positionals: Sequence[str]) -> int:
    """The exit code of scoring single images. Raises ValueError without any image."""
    if not positionals:
        raise UserError("qhk score: no image given; write qhk score IMAGE... checkpoint=FOLDER")
    from qhk.cli.score import run

    assert isinstance(job.request, ScoreRequest)
    return run(job.settings, list(job.overrides), list(positionals), job.request)


COMMANDS: dict[str, Command | LightCommand] = {
    "train": Command(
        sentence="Trains a policy to score image quality by reinforcement; evaluates before and after.",
        positionals="",
        recipes=(
            ("the embedded tiny model on miniature sets, minutes on a CPU", "qhk train"),
            ("a named experiment at laptop size", "qhk train experiment=q_hawkeye scale=miniature seed=1"),
            ("check a full-size run without starting it", "qhk train experiment=q_hawkeye dry_run=true"),
        ),
        request=None,
        start=start_train,
    ),
    "evaluate": Command(
        sentence="Evaluates a checkpoint, or a base model, on benchmarks.",
        positionals="",
        recipes=(
            (
                "a checkpoint on its benchmarks",
                "qhk evaluate checkpoint=outputs/default/default/seed0/checkpoints/last",
            ),
            (
                "chosen benchmarks",
                "qhk evaluate checkpoint=FOLDER 'benchmark=[miniature_koniq,miniature_spaq]'",
            ),
            ("an untrained base model", "qhk evaluate experiment=q_hawkeye checkpoint=null benchmark=koniq"),
        ),
        request=EvaluateRequest,
        start=start_evaluate,
    ),
    "score": Command(
        sentence="Scores images with a checkpoint: score, reasoning, and spread over several samples.",
        positionals="IMAGE...",
        recipes=(
            ("some images", "qhk score photo.jpg other.png checkpoint=FOLDER"),
            (
                "a folder or a glob, as JSON lines",
                "qhk score photos/ 'more/*.png' checkpoint=FOLDER format=json",
            ),
            ("a spread over more samples", "qhk score photo.jpg checkpoint=FOLDER num_samples=32"),
        ),
        request=ScoreRequest,
        start=start_score,
    ),
    **DATA_COMMANDS,
    **SWEEP_COMMANDS,
}
"""Command -> how it runs. A command of two words, ``data check``, belongs to a family, ``data``."""


def read_arguments(words: Sequence[str]) -> Arguments:
    """The parts of a command line. Raises ValueError for an unknown command or flag, or a stray word."""
    if not words or words[0] in ("-h", "--help", "help"):
        return Arguments(
            command=None, overrides=(), positionals=(), help=True, multirun=False, cfg=None, resolve=False
        )
    command, rest = _take_command(words)
    rest, cfg = _take_cfg(rest)
    flags = [word for word in rest if _is_flag(word)]
    for flag in flags:
        if flag not in FLAGS:
            raise UserError(f"{flag}: unknown flag; {suggestion(flag, FLAGS)}; settings are key=value")
    takes_files = bool(COMMANDS[command].positionals)
    words_left = [word for word in rest if not _is_flag(word)]
    files = {word for word in words_left if takes_files and Path(word).exists()}
    overrides = tuple(_at_home(word) for word in words_left if _is_override(word) and word not in files)
    positionals = tuple(word for word in words_left if not _is_override(word) or word in files)
    if positionals and not COMMANDS[command].positionals:
        raise UserError(f"{positionals[0]}: {_stray_fix(positionals[0], rest)}")
    return Arguments(
        command=command,
        overrides=overrides,
        positionals=positionals,
        help="-h" in flags or "--help" in flags,
        multirun="-m" in flags or "--multirun" in flags,
        cfg=cfg,
        resolve="--resolve" in flags,
    )


def _take_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command, of one word or two, and the words after it. Raises ValueError where there is none."""
    members = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    command, rest = (" ".join(words[:2]), words[2:]) if members else (words[0], words[1:])
    if command not in COMMANDS:
        known = members or list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))
        raise UserError(f"{command}: no such command; {suggestion(command, known)}; see qhk --help")
    return command, list(rest)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1


def _is_override(word: str) -> bool:
    return "=" in word or word.startswith("~")


def _at_home(word: str) -> str:
    """``key=~/place`` with the home directory written out: shells leave it, and Hydra cannot read it."""
    key, separator, value = word.partition("=")
    if not separator or not value.startswith("~"):
        return word
    path = expand_home(value)
    return f"{key}={path}" if re.fullmatch(r"[\w./+-]+", path) else f'{key}="{path}"'


def _take_cfg(words: list[str]) -> tuple[list[str], Cfg | None]:
    """The words without ``--cfg job``, and whether it was there."""
    for place, word in enumerate(words):
        flag, separator, value = word.partition("=")
        if flag not in ("--cfg", "-c"):
            continue
        if not separator:
            value = words[place + 1] if place + 1 < len(words) else ""
        if value != "job":
            raise UserError(f"{flag} {value}: must be job; write --cfg job to print the composed config")
        after = place + 1 if separator else place + 2
        return words[:place] + words[after:], "job"
    return words, None


def _stray_fix(word: str, words: list[str]) -> str:
    if word.endswith("]") or any(text.count("[") > text.count("]") for text in words):
        return "a list was split by a space; quote the whole argument, e.g. 'benchmark=[koniq,spaq]'"
    return "not an override; write key=value or group=option, see --help"
