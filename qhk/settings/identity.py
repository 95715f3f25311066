"""Who a run is: its id, its name and its directory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qhk.errors import UserError
from qhk.settings.problems import first_few
from qhk.settings.root import Settings

OUTSIDE_IDENTITY = (
    "paths",
    "pairs",
    "tracking",
    "study",
    "name",
    "distributed",
    "model.branch_checkpointing",
    "training.prompts_per_device",
    "rollout.decode_batch",
    *(
        f"rollout.vllm.{key}"
        for key in (
            "mode",
            "url",
            "exchange",
            "max_model_len",
            "gpu_memory_utilization",
            "sleep",
            "enforce_eager",
        )
    ),
    "evaluation.batch_images",
    "loading.workers",
    "loading.keep_encoded",
    "dry_run",
    "fresh",
    "checkpoint",
)
"""Keys that change where or how fast a run happens, not what it computes. Dataset roots are paths too."""

DESCRIPTIVE = ("expected", "sources")
"""Keys of a set that say what is known of it."""

NAME_LENGTH = 96
DIGEST_LENGTH = 8


def run_id(settings: Settings) -> str:
    """Return twelve hexadecimal digits that name what the run computes.

    Equal settings give equal ids on every machine: sha256 over canonical JSON (sorted keys) of the resolved
    settings without the keys of ``OUTSIDE_IDENTITY`` and without the roots of sets on disk. Keys at their
    default are left out, so that a key which is added later changes no id; the version is in it.
    """
    text = json.dumps(_identity(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def difference(before: Settings, now: Settings) -> str:
    """Return what the settings of two runs compute differently: keys with both values, "" for nothing."""
    one, other = (dict(_leaves(_identity(settings))) for settings in (before, now))
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    values = [f"{key} was {one.get(key, 'left out')}, is {other.get(key, 'left out')}" for key in keys]
    return first_few(values, separator="; ")


def _identity(settings: Settings) -> dict[str, Any]:
    """Return the keys and values that a run's id is made of."""
    plain = settings.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    plain["version"] = settings.version
    parts = [*plain["mixture"].values(), *plain["stages"].values()]
    parts += [part for stage in plain["stages"].values() for part in stage.get("mixture", {}).values()]
    for node in (plain, *parts):
        for key in OUTSIDE_IDENTITY:
            _drop(node, key.split("."))
    for entry in plain["dataset"].values():
        for key in DESCRIPTIVE if entry["miniature"] else (*DESCRIPTIVE, "root"):
            entry.pop(key, None)
    return plain


def _leaves(node: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values below a node as JSON, with their dotted keys."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{parent}{key}.")
        else:
            yield f"{parent}{key}", json.dumps(value)


def run_name(experiment: str | None, overrides: Iterable[str]) -> str:
    """Return a directory name: the experiment (None: ``default``) and what the command line changed about it.

    ``q_hawkeye__scale-miniature__uncertainty-none``. The seed has its own directory, and keys outside a run's
    identity are left out. Characters that would need quotes, in a shell or in an override, become ``_``; a
    long name is cut and ends in a digest of the whole.
    """
    parts = ["default" if experiment is None else experiment]
    parts += sorted(override for override in overrides if not _is_silent(override))
    whole = "__".join(filter(None, parts))
    readable = re.sub(r"[\[{]([^\[\]{}]*)[\]}]", _joined, whole).replace("=", "-").replace(":", "-")
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", readable).strip("_") or "default"
    name = name if name[0].isalnum() else f"run_{name}"
    if len(name) > NAME_LENGTH:
        digest = hashlib.sha256(whole.encode()).hexdigest()[:DIGEST_LENGTH]
        name = f"{name[: NAME_LENGTH - DIGEST_LENGTH - 1]}_{digest}"
    return name


def run_directory(settings: Settings) -> Path:
    """Return ``<outputs>/<study>/<name>/seed<k>``. Raises UserError while the run has no name."""
    if settings.name is None:
        raise UserError("name: missing, got null; set name=... or start the run through the command line")
    return Path(settings.paths.outputs) / settings.study / settings.name / f"seed{settings.seed}"


def _joined(found: re.Match[str]) -> str:
    """Return the items of a list, joined by ``+``."""
    return "+".join(item.strip() for item in found.group(1).split(","))


def _drop(plain: dict[str, Any], parts: list[str]) -> None:
    """Remove a key; a part of a run, such as a stage, has some of the nodes only."""
    node: Any = plain
    for part in parts[:-1]:
        node = node.get(part) or {}
    node.pop(parts[-1], None)


def _is_silent(override: str) -> bool:
    """Return whether an override says nothing about what is computed, or stands elsewhere in the path."""
    key = override.partition("=")[0].lstrip("+~").partition("@")[0]
    if key in ("seed", "experiment", "sweep") or key.startswith("hydra"):
        return True
    if key.startswith("dataset.") and key.endswith(".root"):
        return True
    return any(key == outside or key.startswith(f"{outside}.") for outside in OUTSIDE_IDENTITY)
