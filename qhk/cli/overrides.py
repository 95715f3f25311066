"""Overrides as typed by the user: reads them, checks groups and options before Hydra does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from qhk.cli.catalogue import OVERLAYS, Catalogue
from qhk.settings.problems import suggestion


def parse_override(text: str) -> Override:
    """One override as Hydra reads it. Raises ValueError that says how to quote it."""
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except HydraException:
        raise ValueError(f"{text}: {_reading_fix(text)}") from None


def check_overrides(overrides: Sequence[str], catalogue: Catalogue) -> None:
    """Raises ValueError where an override cannot be read, or chooses an option that its group lacks."""
    for text in overrides:
        override = parse_override(text)
        group = override.key_or_group
        options = catalogue.options.get(group)
        if options is None or override.is_delete():
            continue
        if override.is_sweep_override():
            continue
        chosen = override.value()
        for option in chosen if isinstance(chosen, list) else [chosen]:
            _check_option(group, option, options)


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a multirun: every combination of the swept values, in Hydra's order."""
    jobs: list[list[str]] = [[]]
    for text in overrides:
        override = parse_override(text)
        if override.is_sweep_override():
            key = override.get_key_element()
            cells = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            cells = [text]
        jobs = [[*job, cell] for job in jobs for cell in cells]
    return jobs


def swept(overrides: Iterable[str]) -> list[str]:
    """The overrides that hold several values to run one after another."""
    return [text for text in overrides if parse_override(text).is_sweep_override()]


def _check_option(group: str, option: object, options: list[str]) -> None:
    if option in options or (option is None and group in OVERLAYS):
        return
    if isinstance(option, dict) or not isinstance(option, str | int | float):
        raise ValueError(
            f"{group}={option}: choose an option by its name; {suggestion('', options, prefix='')}"
        )
    raise ValueError(
        f"{group}={option}: {group} has no option {str(option)!r}; "
        f"{suggestion(str(option), options, prefix=f'{group}=')}"
    )


def _reading_fix(text: str) -> str:
    """What most likely went wrong in an override that cannot be read."""
    if text.count("[") != text.count("]") or text.count("{") != text.count("}"):
        return "unbalanced brackets; quote the whole argument for the shell, e.g. 'benchmark=[koniq,spaq]'"
    if text.count("'") % 2 or text.count('"') % 2:
        return "unbalanced quotes; quote the value twice, e.g. 'name=\"my run\"'"
    if "=" in text and not text.partition("=")[0].strip():
        return "nothing stands before '='; write key=value"
    value = text.partition("=")[2]
    if "=" in value or any(sign in value for sign in ":()$&;!?*#|<>%"):
        return f"cannot be read as key=value; quote the value twice, e.g. '{text.partition('=')[0]}=\"{value}\"'"
    return "cannot be read; write key=value, group=option or +key=value, without spaces around '='"
