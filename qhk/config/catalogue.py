"""The YAML files that a command composes from: groups, their options, experiments and sweeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import qhk
from qhk.config.sets import dataset_entries
from qhk.errors import UserError

FOLDER_OF_GROUP = {"experiment": "experiments", "sweep": "sweeps"}
OVERLAYS = ("experiment", "scale", "sweep")
SETS = "dataset"
"""The folder of sets, each known by its file's name: all of them are there, none is to be chosen."""

LAUNCHER = "hydra/launcher"
NESTED = (LAUNCHER,)
"""Groups whose own name has a slash; elsewhere the part behind it belongs to the option."""


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """One YAML file: its group ("" for a primary), option name, package header and content."""

    group: str
    option: str
    package: str | None
    content: DictConfig
    path: Path


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All config files, and by group the names of the options one can choose."""

    files: tuple[ConfigFile, ...]

    @property
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
        found = {f"{file.group}/{file.option}": file.content for file in self.files}
        return dataset_entries(
            {key.removeprefix(f"{SETS}/"): file for key, file in found.items() if key.startswith(f"{SETS}/")}
        )

    @property
    def sets(self) -> list[str]:
        """The names of all sets, for ``data`` and ``benchmark``."""
        return sorted(file.option for file in self.files if file.group == SETS)


def config_root() -> Path:
    """The folder that holds conf, experiments and sweeps: inside the wheel, or the repository's root."""
    package = Path(qhk.__path__[0])
    shipped = package / "_config"
    return shipped if shipped.is_dir() else package.parent


def read_catalogue(root: Path) -> Catalogue:
    """Every YAML file below ``conf``, ``experiments`` and ``sweeps`` of ``root``.

    Raises ValueError naming the file where one is not readable YAML, or where ``conf`` is not there.
    """
    if not (root / "conf").is_dir():
        raise UserError(f"{root / 'conf'}: the config folder is missing; reinstall qhk")
    files = [_read(path, root / "conf", "") for path in sorted((root / "conf").rglob("*.yaml"))]
    for group, folder in FOLDER_OF_GROUP.items():
        files += [_read(path, root / folder, group) for path in sorted((root / folder).rglob("*.yaml"))]
    return Catalogue(files=tuple(files))


def _read(path: Path, base: Path, group: str) -> ConfigFile:
    parent = path.parent.relative_to(base).as_posix()
    inner = "" if parent == "." else parent
    text = path.read_text(encoding="utf-8")
    try:
        content = OmegaConf.create(text)
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{path}: must hold a mapping of keys to values")
    return ConfigFile(
        group="/".join(part for part in (group, inner) if part),
        option=path.stem,
        package=_package(text),
        content=content,
        path=path,
    )


def _package(text: str) -> str | None:
    """The package named in a ``# @package`` header, or None."""
    match = re.search(r"\A(?:\s*#[^\n]*\n)*?\s*#\s*@package\s+(\S+)", text)
    return match.group(1) if match else None
