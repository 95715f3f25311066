"""The catalogue as a place that Hydra searches: only the files of a config are read, each once."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, Self

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource

from qhk.config.catalogue import SETS, Catalogue

SCHEME = "qhk"
ALL_SETS = f"{SETS}/all"
"""The option that holds every set, which no file says."""


class CatalogueSource(ConfigSource):
    """The files of the catalogue, by group and option."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(provider="main", path=f"{SCHEME}://")
        self._catalogue = catalogue
        self._places = {*catalogue.by_place, ALL_SETS}

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Self:
        # Hydra copies its sources for every config; the files of a copied catalogue would be read anew.
        return self

    @staticmethod
    def scheme() -> str:
        """Return what addresses of this source begin with."""
        return SCHEME

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content and header of a file."""
        name = _name(config_path)
        if name not in self._places:
            raise ConfigLoadError(f"Config not found: {config_path}")
        file = self._catalogue.by_place.get(name)
        # A copy: Hydra takes the defaults list out of what it gets.
        return ConfigResult(
            provider=self.provider,
            path=self.path,
            config=pickle.loads(self._catalogue.pickled_dataset if file is None else file.pickled),
            header={"package": file.package if file is not None else None},
        )

    def available(self) -> bool:
        """Return True: the files were found already."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Return whether files lie below the path."""
        inside = f"{config_path}/" if config_path else ""
        return any(name.startswith(inside) for name in self._places)

    def is_config(self, config_path: str) -> bool:
        """Return whether the path is a file's."""
        return _name(config_path) in self._places

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Return the names of files and folders below the path."""
        found: list[str] = []
        inside = f"{config_path}/" if config_path else ""
        for name in self._places:
            if name.startswith(inside):
                first, _, rest = name.removeprefix(inside).partition("/")
                path = first if rest else f"{first}.yaml"
                self._list_add_result(found, f"{inside}{path}", path, results_filter)
        return sorted(set(found))


def _name(config_path: str) -> str:
    return config_path.removesuffix(".yaml")
