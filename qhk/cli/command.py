"""What a command is, and the checked job that it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qhk.config.catalogue import Catalogue
from qhk.settings import DatasetSettings, Settings
from qhk.settings.base import Node


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run needs. ``settings.name`` is set; ``request`` holds the keys that only its command has.

    ``datasets`` are all entries of the composed config, also those that ``settings`` does not use.
    ``notes`` are lines for the user about choices that an overlay replaced.
    """

    settings: Settings
    datasets: Mapping[str, DatasetSettings]
    overrides: tuple[str, ...]
    request: Node | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: its sentence, what its positionals are called ("" for none), and how it starts.

    ``request`` types the keys that the command's primary config has beyond the shared ones.
    """

    sentence: str
    positionals: str
    recipes: tuple[tuple[str, str], ...]
    request: type[Node] | None
    start: Callable[[Job, Sequence[str]], int]


@dataclass(frozen=True, kw_only=True)
class LightCommand:
    """A command without the settings of a run: its primary config holds its ``request`` and nothing else."""

    sentence: str
    positionals: str
    recipes: tuple[tuple[str, str], ...]
    request: type[Node]
    start: Callable[[Node, Sequence[str], Sequence[str], Catalogue], int]
    """Called with the request, the positionals, the overrides and the catalogue; returns the exit code."""
