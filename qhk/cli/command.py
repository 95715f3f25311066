"""What a command is, and what it is called with once its config is composed and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qhk.config.catalogue import Catalogue
from qhk.settings.base import Node
from qhk.settings.data import DatasetSettings
from qhk.settings.root import Settings

Request = TypeVar("Request", bound=Node | None)


@dataclass(frozen=True, kw_only=True)
class Job(Generic[Request]):
    """What a command gets that works with the settings of a run. ``settings.name`` is set.

    ``request`` holds the keys that only the command has. ``datasets`` are all entries of the composed config,
    also those that ``settings`` does not use. ``notes`` are lines for the user about choices that an overlay
    replaced.
    """

    settings: Settings
    request: Request
    positionals: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    datasets: Mapping[str, DatasetSettings]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LightJob(Generic[Request]):
    """What a command gets that needs no settings of a run: its own keys, and what it was called with."""

    request: Request
    positionals: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    catalogue: Catalogue


@dataclass(frozen=True, kw_only=True)
class _Help:
    sentence: str
    recipes: tuple[tuple[str, str], ...]
    positionals: str = ""


@dataclass(frozen=True, kw_only=True)
class Command(_Help, Generic[Request]):
    """One command: its help, the type of the keys that only it has, and the function that runs it.

    ``positionals``: what its words without ``=`` are called, "NAME" for one, "IMAGE..." for one or more, ""
    where it takes none. ``run`` returns the exit code.
    """

    request: type[Request] | None = None
    run: Callable[[Job[Request]], int]


@dataclass(frozen=True, kw_only=True)
class LightCommand(_Help, Generic[Request]):
    """A command whose primary config holds its ``request`` and nothing else."""

    request: type[Request]
    run: Callable[[LightJob[Request]], int]


AnyCommand = Command[Any] | LightCommand[Any]
