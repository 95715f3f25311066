"""The sets of ``conf/dataset``: what entries inherit, and which of them a config uses."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from qhk.errors import UserError
from qhk.settings.problems import suggestion

NAMING = ("data", "benchmark")
"""The keys that name sets, of the run and of its parts."""


def dataset_entries(files: Mapping[str, Mapping[str, Any]]) -> DictConfig:
    """Return the node ``dataset``: every file by its name, with what it inherits.

    ``files`` maps the names of files below ``conf/dataset``, such as ``koniq`` and ``base/scored``, to their
    content. An entry inherits from the files of its ``defaults``, which stand before it; those in ``base``
    are no sets. Its ``adapter`` is its own name unless it says or inherits another one. Raises UserError
    where ``defaults`` names no file, or leads back to the entry.
    """
    entries: dict[str, Any] = {}
    for name in files:
        if "/" not in name:
            entry: dict[str, Any] = {}
            for ancestor in _lineage(name, files):
                own = {key: value for key, value in files[ancestor].items() if key != "defaults"}
                if not isinstance(own.get("options", {}), Mapping):
                    raise UserError(f"dataset {ancestor}: options: must be a mapping, got {own['options']!r}")
                entry |= {**own, "options": {**entry.get("options", {}), **own.get("options", {})}}
                if "/" not in ancestor:
                    entry.setdefault("adapter", ancestor)
            entries[name] = entry
    return OmegaConf.create(entries)


def _lineage(name: str, files: Mapping[str, Any], below: tuple[str, ...] = ()) -> list[str]:
    """Return the files that an entry is made of, each once, ancestors first and the entry last."""
    found: list[str] = []
    parents = files[name].get("defaults") or []
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(
            f"dataset {name}: defaults: must be a list of names such as base/scored, got {parents!r}"
        )
    for parent in parents:
        if parent == "_self_":
            continue  # Its own values stand last, with or without this line of Hydra's.
        if parent not in files:
            raise UserError(f"dataset {name}: defaults: no file {parent!r}; {suggestion(parent, files)}")
        if parent in (name, *below):
            raise UserError(f"dataset {name}: defaults: {parent} inherits from {name} itself; remove it")
        found += [one for one in _lineage(parent, files, (name, *below)) if one not in found]
    return [*found, name]


def keep_used_sets(config: DictConfig) -> DictConfig:
    """Return a copy of a composed config without the entries of ``dataset`` that nothing in it names."""
    kept = copy.deepcopy(config)
    used = set(_named(OmegaConf.to_container(kept, resolve=False)))
    kept.dataset = OmegaConf.masked_copy(config.dataset, [name for name in config.dataset if name in used])
    return kept


def _named(node: Any) -> Iterator[str]:
    """Yield the names of sets in the ``data`` and ``benchmark`` of a node and of the nodes inside it."""
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key in NAMING:
            for item in value if isinstance(value, list) else [value]:
                yield from item if isinstance(item, Mapping) else [item]
        else:
            yield from _named(value)
