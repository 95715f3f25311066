"""Hydra's and OmegaConf's errors as one line that says what to write instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qhk.config.catalogue import SETS, STRENGTHS, Catalogue
from qhk.settings.problems import node_fields, suggestion
from qhk.settings.root import Settings

HYDRA_ERRORS = (HydraException, OmegaConfBaseException)


def one_line(text: str) -> str:
    """Return the text with all white space, line ends included, as single spaces."""
    return " ".join(text.split())


def explain_override(
    error: Exception, overrides: Sequence[str], base: DictConfig | None, catalogue: Catalogue
) -> str:
    """Return one line that names the override which Hydra refused, why, and what to write instead."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = catalogue.options.get(group, [])
        return f"{group}={option}: {group} has no option {option!r}; {suggestion(option, options)}"
    found = re.search(
        r"Could not (?:override|append to config|delete from config)[^'\"\n]*['\"]([^'\"]+)['\"]", str(error)
    )
    found = found or re.search(r"Could not (?:override|delete)\s+([\w./@-]+)", str(error))
    if found is not None:
        key = found.group(1).rstrip(".")
        if "delete from config" in str(error) and _is_there(key, base):
            return _deletion(key, overrides)
        return _unknown_key(key, overrides, base, catalogue)
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        return one_line(f"{error} ({error.__cause__})")
    return one_line(str(error))


def _deletion(key: str, overrides: Sequence[str]) -> str:
    """Why a key that is there was not deleted."""
    words = [word for word in overrides if word.startswith("~") and _lies_in(key, word[1:].partition("=")[0])]
    typed = next((word for word in words if word[1:].partition("=")[0] == key), f"~{key}")
    if "=" in typed:
        return f"{typed}: {key} has another value; write ~{key}"
    if len(words) > 1:
        return f"{typed}: {key} is deleted already; leave this out"
    return f"{typed}: {key} is null, so there is nothing to delete; leave this out"


def _is_there(key: str, base: DictConfig | None) -> bool:
    parent, _, last = key.rpartition(".")
    node = _node(parent, base)
    return isinstance(node, DictConfig) and last in node


def _node(path: str, base: DictConfig | None) -> object:
    """What stands at the path, the whole of ``base`` at an empty one; None for nothing."""
    return base if not path or base is None else OmegaConf.select(base, path, default=None)


def _lies_in(key: str, node: str) -> bool:
    return key == node or key.startswith(f"{node}.")


def explain_interpolation(error: OmegaConfBaseException) -> str:
    """Return one line for a value that refers to a key which is not there."""
    key = error.full_key or "config"
    first = str(error).splitlines()[0]
    return f"{key}: {one_line(first)}; write the value itself, or refer to an existing key as ${{group.key}}"


def _unknown_key(key: str, overrides: Sequence[str], base: DictConfig | None, catalogue: Catalogue) -> str:
    typed = next((text for text in overrides if text.lstrip("+~").startswith(key)), key)
    parent, _, last = key.rpartition(".")
    node = _node(parent, base)
    while parent and node is None:
        parent, _, last = parent.rpartition(".")
        node = _node(parent, base)
    known = [str(name) for name in node] if isinstance(node, DictConfig) else []
    prefix = f"{parent}." if parent else ""
    fix = suggestion(last, known, prefix=prefix, listed_by="--help" if parent == SETS else "--cfg job")
    if last in known and typed.startswith("+"):
        return f"{typed}: {key} is there already; write {typed.lstrip('+')}"
    if last in known:
        return (
            f"{typed}: a mapping on the command line cannot bring new keys; write +{key}.NAME=VALUE for each"
        )
    if parent and not node_fields(Settings, parent) and parent.partition(".")[0] != STRENGTHS:
        return f"{typed}: {parent} has no key {last!r}; {fix}; write +{prefix}{last}=VALUE to add it"
    if not parent and last in catalogue.options:
        return f"{typed}: this command does not read {last}; leave it out"
    if not parent:
        fix = suggestion(last, {*known, *catalogue.options}, listed_by="--cfg job")
    where = f"{parent} has no key {last!r}" if parent else f"there is no key or group {last!r}"
    return f"{typed}: {where}; {fix}"
