"""What a run would be computed from here and now: the digest of its code, the fingerprints of its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qhk.data.datasets import load_dataset_entry
from qhk.settings import DatasetSettings, Settings, reward_modules
from qhk.tracking.code import run_code
from qhk.training.display import Display


class Present:
    """Digests and fingerprints, each computed once, however many runs of a plan have it in common."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self._codes: dict[frozenset[str], str] = {}
        self._sets: dict[tuple[str, str], str | ValueError] = {}

    def code(self, settings: Settings) -> str:
        """The digest that the run's provenance would bear; see ``run_code``."""
        modules = frozenset(reward_modules(settings))
        if modules not in self._codes:
            self._codes[modules] = run_code(settings)
        return self._codes[modules]

    def data(self, settings: Settings) -> Mapping[str, str]:
        """The fingerprint of every set that the run would read, by name.

        Raises ValueError, one line, for a set that cannot be read here. What the inventory below the cache
        remembers of unchanged pictures is not read again; others are, as the run itself would.
        """
        return {name: self._fingerprint(name, entry, settings) for name, entry in settings.dataset.items()}

    def _fingerprint(self, name: str, entry: DatasetSettings, settings: Settings) -> str:
        key = (name, f"{entry.model_dump_json()} {settings.paths.cache}")
        if key not in self._sets:
            try:
                self._sets[key] = self._read(name, entry, settings)
            except ValueError as error:
                self._sets[key] = error
        found = self._sets[key]
        if isinstance(found, ValueError):
            raise found
        return found

    def _read(self, name: str, entry: DatasetSettings, settings: Settings) -> str:
        with self.display.task(f"comparing {name}") as progress:
            return load_dataset_entry(
                name,
                entry,
                cache=Path(settings.paths.cache),
                progress=progress,
                workers=settings.loading.workers,
            ).fingerprint
