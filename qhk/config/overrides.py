"""Overrides as typed by the user: reads them, checks groups and options before Hydra does."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException

from qhk.config.catalogue import LAUNCHER, OVERLAYS, SETS, Catalogue
from qhk.config.sets import NAMING
from qhk.errors import UserError
from qhk.settings.data import LoadingSettings
from qhk.settings.problems import suggestion

OWN_WAYS = {
    "hydra.run": "a run lies in paths.outputs/study/name/seedN; set paths.outputs, study or name",
    "hydra.sweep": "a run lies in paths.outputs/study/name/seedN; set paths.outputs, study or name",
    "hydra.sweeper": "write the values as key=a,b,c with -m, or a file in sweeps/",
    "hydra.job.chdir": "a run stays in the current directory; set paths.outputs",
    "hydra.job.name": "set name",
    "hydra.output_subdir": "a run keeps its config as config.yaml",
    "hydra.mode": "-m runs several values",
    "hydra.job_logging": "hydra.verbose=true, or a list of loggers, tells more",
    "hydra.hydra_logging": "hydra.verbose=true, or a list of loggers, tells more",
    "hydra.help": "--help is qhk's own",
    "hydra.callbacks": "a run is recorded by qhk itself",
}
"""Keys of Hydra's own node -> what does here what they do in other programs."""


def parse_override(text: str) -> Override:
    """Return one override as Hydra reads it. Raises UserError that says how to write it."""
    try:
        override = OverridesParser.create().parse_overrides([text])[0]
    except HydraException:
        raise UserError(f"{text}: {_reading_fix(text)}") from None
    if not override.key_or_group:
        raise UserError(f"{text}: nothing stands before '='; write key=value")
    return override


def check_overrides(overrides: Sequence[str], catalogue: Catalogue) -> None:
    """Raise UserError where an override cannot be read, holds several values, or names no option."""
    for text in overrides:
        override = parse_override(text)
        if override.is_sweep_override():
            raise UserError(
                f"{text}: several values; add -m to run one after another, or give one list as "
                f"'{override.key_or_group}=[...]'"
            )
        _check_hydra(text, override)
        _check_named_set(text, override)
        options = catalogue.options.get(override.key_or_group)
        if options is None:
            continue
        _check_sign(text, override, options)
        if override.is_delete():
            continue
        chosen = override.value()
        for option in chosen if isinstance(chosen, list) else [chosen]:
            _check_option(override.key_or_group, option, options)


def refuse_repeated(overrides: Sequence[str]) -> None:
    """Raise UserError for a key or a group that one author gives a value, and then another one or ``~``.

    The last would win without a word. What is deleted may be added anew, as a term with other settings is.
    """
    given: dict[tuple[str, str | None], tuple[str, Override]] = {}
    for text in overrides:
        override = parse_override(text)
        key = (override.key_or_group, override.package)
        before, earlier = given.get(key, (text, override))
        if (override.is_delete(), override.value()) != (earlier.is_delete(), earlier.value()):
            raise UserError(f"{text}: {before} stands beside it; keep one of them")
        if not override.is_delete():
            given[key] = (text, override)


def expand(overrides: Sequence[str], catalogue: Catalogue) -> list[list[str]]:
    """Return the jobs of a multirun: every combination of the swept values, the last override fastest.

    Raises UserError for a pattern that matches no option, and for a range without an end.
    """
    return [list(job) for job in itertools.product(*(cells(text, catalogue) for text in overrides))]


def cells(text: str, catalogue: Catalogue) -> list[str]:
    """Return the single overrides that one override stands for: itself, or one for each of its values."""
    override = parse_override(text)
    if not override.is_sweep_override():
        return [text]
    key = override.get_key_element()
    value: object = override.value()
    if isinstance(value, Glob):
        options = catalogue.options.get(override.key_or_group, [])
        names = value.filter(list(options))
        if not names:
            raise UserError(f"{text}: matches nothing; {suggestion('', options)}")
        return [f"{key}={name}" for name in names]
    try:
        return [f"{key}={item}" for item in override.sweep_string_iterator()]
    except HydraException as error:
        raise UserError(f"{text}: {' '.join(str(error).split())}; list the values as a,b,c") from None


def _check_hydra(text: str, override: Override) -> None:
    """Raise UserError for a key of Hydra's own node that would have no effect here."""
    key = override.key_or_group
    if (
        key.replace("/", ".").partition(".")[0] != "hydra"
        or key == LAUNCHER
        or key.startswith("hydra.launcher.")
    ):
        return
    known = [name for name in OWN_WAYS if f"{key.replace('/', '.')}.".startswith(f"{name}.")]
    way = OWN_WAYS[known[0]] if known else "only hydra/launcher, hydra.launcher, hydra.verbose and "
    way = way if known else f"{way}hydra.searchpath are there"
    raise UserError(f"{text}: has no effect here; {way}")


def _check_named_set(text: str, override: Override) -> None:
    """Raise UserError for a key below ``data`` or ``benchmark``, lists of sets, and for ``dataset=``."""
    key, value = override.key_or_group, text.partition("=")[2]
    if key == SETS:
        raise UserError(f"{text}: sets are named, not chosen; write data={value} or benchmark={value}")
    parts = key.split(".")
    place = next((place for place, part in enumerate(parts[:-1]) if part in NAMING), None)
    if place is None or parts[0] not in (*NAMING, "mixture", "stages"):
        return
    parents, naming, below = parts[:place], parts[place], parts[place + 1 :]
    node = ".".join(parts[: place + 1])
    if naming == "data" and below[0] in LoadingSettings.model_fields:
        own = ".".join([*parents, "loading"])
        further = f"; for this part alone, add +loading@{own}=default and write {own}.{below[0]}={value}"
        raise UserError(f"{text}: write loading.{below[0]}={value}{further if parents else ''}")
    if override.is_delete():
        raise UserError(f"{text}: {node} is a list of sets; write those to keep, e.g. '{node}=[koniq]'")
    named = below[-1:] if naming == "data" else [*(["koniq"] if len(below) == 1 else []), *below][-2:]
    item = "".join(f"{{{part}:" for part in named) + value + "}" * len(named)
    raise UserError(f"{text}: {node} is a list of sets; write all of it, e.g. '{node}=[{item}]'")


def _check_sign(text: str, override: Override, options: list[str]) -> None:
    """Raise UserError for ``+group=option`` and ``~group``: every group has an option, and needs one."""
    group, overlay = override.key_or_group, override.key_or_group in OVERLAYS
    if override.package is not None:
        return
    if override.is_delete():
        way = f"{group}=null" if overlay else f"{group}=none" if "none" in options else ""
        raise UserError(
            f"{text}: every run has its {group}; {f'write {way}' if way else suggestion('', options)}"
        )
    if override.is_add() and not overlay:
        raise UserError(f"{text}: {group} has an option already; write {text.lstrip('+')}")


def named_in_lists(text: str) -> str:
    """Return the override with sets as a list: ``data={koniq:1,spaq:2}`` as ``data=[{koniq:1},{spaq:2}]``.

    A mapping would be merged with the names that are there, a list replaces them. Other overrides are
    returned as they are.
    """
    key, _, value = text.partition("=")
    if key.lstrip("+").rpartition(".")[2] not in NAMING or not value.startswith("{"):
        return text
    chosen = parse_override(text).value()
    if not isinstance(chosen, dict):
        return text
    return f"{key}=[{','.join(_written({name: own}) for name, own in chosen.items())}]"


def _written(value: object) -> str:
    """Return a value of an override as Hydra reads it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(own)}" for key, own in value.items()) + "}"
    return str(value) if isinstance(value, str) else json.dumps(value)


def _check_option(group: str, option: object, options: list[str]) -> None:
    if option in options or (option is None and group in OVERLAYS):
        return
    shown = "null" if option is None else str(option)
    raise UserError(
        f"{group}={shown}: {group} has no option {shown!r}; {suggestion(shown, options, prefix=f'{group}=')}"
    )


def _reading_fix(text: str) -> str:
    """Return what most likely went wrong in an override that cannot be read."""
    key, _, value = text.partition("=")
    if not text.isascii():
        return f"letters beyond a to z need quotes, for the shell and for Hydra: '{key}=\"{value}\"'"
    if text.count("[") != text.count("]") or text.count("{") != text.count("}"):
        return "unbalanced brackets; quote the whole argument for the shell, e.g. 'benchmark=[koniq,spaq]'"
    if text.count("'") % 2 or text.count('"') % 2:
        return "unbalanced quotes; quote the value twice, e.g. 'name=\"my run\"'"
    if not key.strip():
        return "nothing stands before '='; write key=value"
    if "=" in value or any(sign in value for sign in ":()$&;!?*#|<>% "):
        return f"cannot be read as key=value; quote the value twice, e.g. '{key}=\"{value}\"'"
    return "cannot be read; write key=value, group=option or +key=value, without spaces around '='"
