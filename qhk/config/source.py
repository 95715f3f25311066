"""The catalogue as a place that Hydra searches: only the files of a config are read, each once."""

from __future__ import annotations

from copy import deepcopy

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from qhk.config.catalogue import SETS, Catalogue

SCHEME = "qhk"
ALL_SETS = f"{SETS}/all"
"""The option that holds every set, which no file says."""

_CATALOGUES: list[Catalogue] = []
"""The one that is searched: Hydra makes its sources itself, from an address alone."""


def search_only(catalogue: Catalogue) -> None:
    """Let Hydra find this catalogue's files, and those of no other, besides its own."""
    if not _CATALOGUES:
        Plugins.instance().register(CatalogueSource)
        Plugins.instance().register(_CatalogueSearchPath)
    _CATALOGUES[:] = [catalogue]


class CatalogueSource(ConfigSource):
    """The files of the catalogue, by group and option."""

    # Hydra copies its sources with all that they hold, so that a catalogue of theirs would be read anew.
    @property
    def _catalogue(self) -> Catalogue:
        return _CATALOGUES[0]

    @property
    def _places(self) -> set[str]:
        return {*self._catalogue.by_place, ALL_SETS}

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
        # Hydra takes the defaults list out of what it gets.
        return ConfigResult(
            provider=self.provider,
            path=f"{SCHEME}://",
            config=deepcopy(self._catalogue.dataset if file is None else file.content),
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


class _CatalogueSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="main", path=f"{SCHEME}://")


def _name(config_path: str) -> str:
    return config_path.removesuffix(".yaml")
