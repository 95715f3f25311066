"""Composes a command's config from the catalogue, and says what was wrong in one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qhk.cli.catalogue import Catalogue
from qhk.cli.errors import HYDRA_ERRORS, explain_interpolation, explain_override
from qhk.cli.overrides import check_overrides

VERSION_BASE = "1.3"


def register(catalogue: Catalogue) -> None:
    """Puts every config file into Hydra's ConfigStore, where ``compose`` and ``hydra.main`` find it."""
    store = ConfigStore.instance()
    for file in catalogue.files:
        store.store(
            name=file.option,
            node=file.content,
            group=file.group or None,
            package=file.package,
            provider="qhk",
        )


def compose_config(command: str, overrides: Sequence[str], catalogue: Catalogue) -> DictConfig:
    """The composed config of one job, without Hydra's own node, interpolations unresolved.

    Raises ValueError in one line for an unknown group, option or key, and for an override that Hydra
    cannot read; the line names it and the fix.
    """
    check_overrides(overrides, catalogue)
    register(catalogue)
    GlobalHydra.instance().clear()
    try:
        with initialize(config_path=None, version_base=VERSION_BASE):
            return compose(config_name=command, overrides=list(overrides))
    except HYDRA_ERRORS as error:
        raise ValueError(explain_override(error, overrides, _base(command), catalogue)) from None


def _base(command: str) -> DictConfig | None:
    """The command's config without any override, for the names of its keys; None if it cannot compose."""
    GlobalHydra.instance().clear()
    try:
        with initialize(config_path=None, version_base=VERSION_BASE):
            return compose(config_name=command)
    except HYDRA_ERRORS:
        return None


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The config as plain data with interpolations resolved. Raises ValueError where one leads nowhere."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(explain_interpolation(error)) from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def choice_of(group: str, overrides: Iterable[str]) -> str | None:
    """The option that the command line chose for a group, or None."""
    chosen = [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith(f"{group}=")]
    return chosen[-1] if chosen and chosen[-1] not in ("", "null") else None
