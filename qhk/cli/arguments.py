"""Splits a command line into command, flags, overrides and positionals, before Hydra sees any of it."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from qhk.cli.commands import COMMANDS
from qhk.errors import UserError
from qhk.settings.base import expand_home
from qhk.settings.problems import suggestion

Cfg = Literal["job", "hydra", "all"]
Info = Literal["defaults", "config", "searchpath", "all"]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A word with dashes, most of them Hydra's: its names, what follows it, its help ("" for none).

    ``options`` are those of argparse; by default one text follows.
    """

    names: tuple[str, ...]
    value: str = ""
    help: str
    options: Mapping[str, Any] = field(default_factory=dict)


_SWITCH = {"action": "store_true"}
FLAGS = (
    Flag(
        names=("-c", "--cfg"),
        value="job|hydra|all",
        help="print the composed config and stop; --resolve fills in ${...}",
        options={"choices": get_args(Cfg)},
    ),
    Flag(names=("--resolve",), help="", options=_SWITCH),
    Flag(names=("-p", "--package"), value="NODE", help="of --cfg, one node alone"),
    Flag(
        names=("--info",),
        value="[defaults|config|searchpath]",
        help="print what the config is made of and stop",
        options={"choices": get_args(Info), "nargs": "?", "const": "all"},
    ),
    Flag(
        names=("-cd", "--config-dir"),
        value="FOLDER",
        help="your own YAML files, in folders named like the groups",
        options={"action": "append", "default": []},
    ),
    Flag(
        names=("-m", "--multirun"),
        help="one run for each of several values: -m seed=0,1,2",
        options=_SWITCH,
    ),
    Flag(
        names=("-sc", "--shell-completion"),
        value="install=bash",
        help='tab completion: eval "$(qhk -sc install=bash)"',
        options={"dest": "completion"},
    ),
    Flag(names=("--version",), help="the version, and stop", options=_SWITCH),
    Flag(names=("-h", "--help"), help="this text", options=_SWITCH),
)
FLAG_NAMES = tuple(name for flag in FLAGS for name in flag.names)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A command line in its parts; ``command`` is None for the general help.

    ``config_dirs`` are the user's folders of YAML files. ``verbose`` names the loggers that tell everything,
    "" being all of them.
    """

    command: str | None
    overrides: tuple[str, ...] = ()
    positionals: tuple[str, ...] = ()
    help: bool = False
    version: bool = False
    multirun: bool = False
    cfg: Cfg | None = None
    resolve: bool = False
    package: str | None = None
    info: Info | None = None
    config_dirs: tuple[Path, ...] = ()
    completion: str | None = None
    verbose: tuple[str, ...] = ()


def read_arguments(words: Sequence[str]) -> Arguments:
    """Return the parts of a command line. Raises UserError for an unknown command or flag or a stray word."""
    if not words or words[0] in ("-h", "--help", "help"):
        return Arguments(command=None, help=True)
    flags, rest = read_flags(words)
    if flags.version or flags.completion is not None:
        return Arguments(command=None, version=flags.version, completion=flags.completion)
    command, rest = _take_command(rest)
    for place, word in enumerate(rest):
        if _is_flag(word):
            raise UserError(_unknown_flag(word, rest[place + 1 :]))
    takes_files = bool(COMMANDS[command].positionals)
    files = {word for word in rest if takes_files and Path(word).exists()}
    overrides = [_at_home(word) for word in rest if _is_override(word) and word not in files]
    positionals = tuple(word for word in rest if not _is_override(word) or word in files)
    if positionals and not takes_files:
        raise UserError(f"{positionals[0]}: {_stray_fix(positionals[0], rest)}")
    overrides, verbose = take_values(overrides, "hydra.verbose")
    overrides, searched = take_values(overrides, "hydra.searchpath")
    return Arguments(
        command=command,
        overrides=tuple(overrides),
        positionals=positionals,
        help=flags.help,
        multirun=flags.multirun,
        cfg=flags.cfg,
        resolve=flags.resolve,
        package=flags.package,
        info=flags.info,
        config_dirs=tuple(folder_of(text) for text in [*flags.config_dir, *searched]),
        verbose=tuple("" if text == "true" else text for text in verbose if text != "false"),
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see qhk --help")


def read_flags(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags, under Hydra's names, and all other words in their order."""
    parser = _Parser(prog="qhk", add_help=False, allow_abbrev=False)
    for flag in FLAGS:
        parser.add_argument(*flag.names, **flag.options)
    return parser.parse_known_args(list(words))


def _unknown_flag(flag: str, behind: Sequence[str]) -> str:
    """Return what to write in place of a flag that is none: ``seed=3`` for ``--seed 3``."""
    name, _, value = flag.lstrip("-").replace("-", "_").partition("=")
    if not value and behind and not _is_flag(behind[0]) and not _is_override(behind[0]):
        value = behind[0]
    if flag.startswith("--") and value and not difflib.get_close_matches(flag, FLAG_NAMES, cutoff=0.8):
        return f"{flag}: settings have no dashes; write {name}={value}"
    return f"{flag}: unknown flag; {suggestion(flag, FLAG_NAMES)}; settings are key=value"


def take_values(overrides: Sequence[str], key: str) -> tuple[list[str], list[str]]:
    """Return the overrides without those of a key, and the values that these give it, one or a list."""
    values = [word.partition("=")[2] for word in overrides if word.lstrip("+").partition("=")[0] == key]
    items = [item.strip().strip("'\"") for value in values for item in value.strip("[]").split(",")]
    return [word for word in overrides if word.lstrip("+").partition("=")[0] != key], [*filter(None, items)]


def folder_of(text: str) -> Path:
    """Return a folder of a search path. Raises UserError for one that is no folder of this machine."""
    scheme, separator, path = text.partition("://")
    if separator and scheme != "file":
        raise UserError(f"hydra.searchpath: {text} is no folder; write file:///path/to/folder")
    return Path(expand_home(path if separator else text))


def _take_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the command, of one word or two, and the words after it. Raises UserError for no command."""
    members = [name for name in COMMANDS if words and name.startswith(f"{words[0]} ")]
    length = 2 if members else 1
    command, rest = " ".join(words[:length]), words[length:]
    if command not in COMMANDS:
        known = members or list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))
        what = f"{command}: no such command" if words else "no command"
        raise UserError(f"{what}; {suggestion(command, known)}; see qhk --help")
    return command, list(rest)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1


def _is_override(word: str) -> bool:
    return "=" in word or word.startswith("~")


def _at_home(word: str) -> str:
    """Return ``key=~/place`` with the home directory written out: shells leave it, Hydra cannot read it."""
    key, separator, value = word.partition("=")
    if not separator or not value.startswith("~"):
        return word
    path = expand_home(value)
    return f"{key}={path}" if re.fullmatch(r"[\w./+-]+", path) else f'{key}="{path}"'


def _stray_fix(word: str, words: list[str]) -> str:
    if word.endswith("]") or any(text.count("[") > text.count("]") for text in words):
        return "a list was split by a space; quote the whole argument, e.g. 'benchmark=[koniq,spaq]'"
    return "not an override; write key=value or group=option, see --help"
