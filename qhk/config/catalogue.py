"""The YAML files that a command composes from: groups, their options, experiments and sweeps."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import qhk
from qhk.errors import UserError
from qhk.files import fast_yaml, read_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

FOLDER_OF_GROUP = {"experiment": "experiments", "sweep": "sweeps"}
_GROUP_OF_FOLDER = {folder: group for group, folder in FOLDER_OF_GROUP.items()}
OVERLAYS = ("experiment", "scale", "sweep")
SETS = "dataset"
"""The folder of sets, each known by its file's name: all of them are there, none is to be chosen."""

STRENGTHS = "strengths"
"""The node of numbers that options refer to; it is no part of a run's settings."""

LAUNCHER = "hydra/launcher"
NESTED = (LAUNCHER,)
"""Groups whose own name has a slash; elsewhere the part behind it belongs to the option."""


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """One YAML file: its group ("" for a primary), and its option name."""

    group: str
    option: str
    path: Path

    @cached_property
    def text(self) -> str:
        """The file as it is on disk."""
        return read_text(self.path)

    @cached_property
    def plain(self) -> dict[str, Any]:
        """What the file holds. Raises UserError naming it where it is not readable YAML, or no mapping."""
        try:
            plain = yaml.load(self.text, _loader(fast=fast_yaml(self.text))) or {}
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"{self.path}: not readable YAML: {' '.join(str(error).split())}") from None
        if not isinstance(plain, dict):
            raise UserError(f"{self.path}: must hold a mapping of keys to values")
        return plain

    @cached_property
    def content(self) -> DictConfig:
        """What the file holds, as OmegaConf has it. Raises UserError as ``plain`` does."""
        # Names of files are enough for help and completion, which must not wait for OmegaConf.
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            return OmegaConf.create(self.plain)
        except OmegaConfBaseException as error:
            raise UserError(f"{self.path}: not readable YAML: {' '.join(str(error).split())}") from None

    @cached_property
    def pickled(self) -> bytes:
        """``content`` as bytes, of which a copy is made in a sixth of the time of ``deepcopy``."""
        return pickle.dumps(self.content)

    @property
    def package(self) -> str | None:
        """The package named in a ``# @package`` header, or None."""
        match = re.search(r"\A(?:\s*#[^\n]*\n)*?\s*#\s*@package\s+(\S+)", self.text)
        return match.group(1) if match else None

    @property
    def claim(self) -> str:
        """What the comment at the top says, on one line, without ``Claim:``; empty where there is none."""
        lines = takewhile(lambda line: line.startswith("#"), self.text.splitlines())
        words = " ".join(line.lstrip("# ") for line in lines if not line.startswith("# @package"))
        return words.removeprefix("Claim: ")


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All config files, and by group the names of the options one can choose."""

    files: tuple[ConfigFile, ...]

    @cached_property
    def by_place(self) -> Mapping[str, ConfigFile]:
        """Group and option, as ``model/tiny``, or the name of a primary -> its file; sets are apart."""
        places = {f"{file.group}/{file.option}".lstrip("/"): file for file in self.files}
        return {place: file for place, file in places.items() if place.partition("/")[0] != SETS}

    @cached_property
    def options(self) -> Mapping[str, list[str]]:
        """Group -> its options. Options in folders are named from their top group: ``ablation/no_gamma``."""
        found: dict[str, list[str]] = {group: [] for group in FOLDER_OF_GROUP}
        for file in self.files:
            if file.group and file.group.partition("/")[0] != SETS:
                top, _, folder = (file.group, "", "") if file.group in NESTED else file.group.partition("/")
                found.setdefault(top, []).append(f"{folder}/{file.option}" if folder else file.option)
        return {group: sorted(found[group]) for group in sorted(found)}

    @cached_property
    def dataset(self) -> DictConfig:
        """The config node ``dataset``: every set by its file's name, as ``dataset_entries`` reads it."""
        # As for the content of a file: OmegaConf is imported where it is needed.
        from qhk.config.sets import dataset_entries

        found = {f"{file.group}/{file.option}": file for file in self.files}
        return dataset_entries(
            {
                key.removeprefix(f"{SETS}/"): file.plain
                for key, file in found.items()
                if key.startswith(f"{SETS}/")
            }
        )

    @cached_property
    def pickled_dataset(self) -> bytes:
        """The node ``dataset`` as bytes, to be copied as the content of a file is."""
        return pickle.dumps(self.dataset)

    @cached_property
    def composed(self) -> dict[tuple[str, tuple[str, ...]], bytes]:
        """What was composed lately: command and options -> the config before values are set, pickled."""
        return {}

    @property
    def sets(self) -> list[str]:
        """The names of all sets, for ``data`` and ``benchmark``."""
        return sorted(file.option for file in self.files if file.group == SETS)


def config_root() -> Path:
    """The folder that holds conf, experiments and sweeps: inside the wheel, or the repository's root."""
    package = Path(qhk.__path__[0])
    shipped = package / "_config"
    return shipped if shipped.is_dir() else package.parent


def read_catalogue(root: Path, further: Sequence[Path] = ()) -> Catalogue:
    """Return the YAML files below ``conf``, ``experiments`` and ``sweeps`` of ``root``, and of ``further``.

    A folder of the user is laid out like ``conf``; its experiments and sweeps stand in ``experiment`` or
    ``experiments``, ``sweep`` or ``sweeps``. Of files of one name, that of the last folder counts. Raises
    UserError where a folder is not there.
    """
    if not (root / "conf").is_dir():
        raise UserError(f"{root / 'conf'}: the config folder is missing; reinstall qhk")
    found = _below(root / "conf", "")
    for group, folder in FOLDER_OF_GROUP.items():
        found |= _below(root / folder, group)
    for own in further:
        if not own.is_dir():
            raise UserError(f"--config-dir {own}: is no folder; give one that is laid out like conf")
        found |= _below(own, "")
    return Catalogue(files=tuple(found.values()))


def choice_of(group: str, overrides: Sequence[str]) -> str | None:
    """The option that the command line chose for a group, or None."""
    chosen = [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith(f"{group}=")]
    return chosen[-1] if chosen and chosen[-1] not in ("", "null") else None


def search_folders(root: Path, further: Sequence[Path]) -> list[Path]:
    """Return the folders that ``read_catalogue`` looks into, the one that counts most last."""
    return [root / "conf", *(root / folder for folder in FOLDER_OF_GROUP.values()), *further]


def _below(base: Path, group: str) -> dict[tuple[str, str], ConfigFile]:
    """Return the files below a folder, which is that of ``group``, by their group and option."""
    files = {}
    for path in sorted(base.rglob("*.yaml")):
        top, *inner = [*([group] if group else []), *path.parent.relative_to(base).parts, ""][:-1] or [""]
        own = "/".join([_GROUP_OF_FOLDER.get(top, top), *inner])
        files[own, path.stem] = ConfigFile(group=own, option=path.stem, path=path)
    return files


@cache
def _loader(*, fast: bool) -> Any:
    """Return OmegaConf's loader (numbers such as 1e-4, no key twice), on the C parser where ``fast``."""
    from omegaconf._utils import get_yaml_loader

    class Loader(yaml.CSafeLoader, get_yaml_loader()):  # type: ignore[misc]
        pass

    return Loader if fast else get_yaml_loader()
