"""``provenance.json``: which code, packages, machine and data made a run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qhk.files import read_json, reading, typed, write_atomically

PACKAGES = (
    "torch", "torchvision", "transformers", "tokenizers", "safetensors", "accelerate", "deepspeed", "peft",
    "numpy", "scipy", "pandas", "pillow", "pydantic", "hydra-core", "omegaconf", "wandb",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a run. It stands while ``code_digest`` and ``data_fingerprints`` are unchanged."""

    code_digest: str
    data_fingerprints: Mapping[str, str]
    packages: Mapping[str, str]
    python: str
    hardware: Mapping[str, str | int | float]
    accelerators: Sequence[str]
    threads: int
    commit: str = ""
    """What git had checked out, which the code may have changes beyond; "" without git, and in old files."""


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change a number."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_hardware() -> dict[str, str | int | float]:
    """Return machine, processor, cores this process may use, and memory in GiB."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
    }


def gather_provenance(
    *,
    code: str,
    data_fingerprints: Mapping[str, str],
    accelerators: Sequence[str],
    threads: int,
    commit: str = "",
) -> Provenance:
    """Return the provenance of a run started by this process.

    ``code`` is a digest as of ``code_digest``; ``accelerators`` are device names, empty on CPU.
    """
    return Provenance(
        code_digest=code,
        data_fingerprints=dict(data_fingerprints),
        packages=package_versions(),
        python=platform.python_version(),
        hardware=describe_hardware(),
        accelerators=list(accelerators),
        threads=threads,
        commit=commit,
    )


def code_differences(old: Provenance, new: Provenance) -> list[str]:
    """Return what differs in the code, in a few words; empty for equal digests."""
    if old.code_digest == new.code_digest:
        return []
    return [f"code ({old.code_digest[:12]}, now {new.code_digest[:12]})"]


def data_differences(old: Provenance, new: Provenance) -> list[str]:
    """Return which data sets differ, in a few words each; empty for equal fingerprints."""
    return changed_sets(old.data_fingerprints, new.data_fingerprints)


def changed_sets(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return which fingerprints, by the names of their sets, differ."""
    names = sorted({*before, *now})
    return [f"data {name}" for name in names if before.get(name) != now.get(name)]


def read_provenance(path: Path) -> Provenance | None:
    """Return the latest provenance in ``path``, None without one. Raises ``UserError`` for any other file."""
    content = _content(path)
    if content is None:
        return None
    with reading(path, "a provenance file", "move it away"):
        return typed(Provenance, {name: value for name, value in content.items() if name != "earlier"})


def earlier_codes(path: Path) -> list[str]:
    """Return the digests of the code that the run was started with before its latest start, in order."""
    content = _content(path)
    with reading(path, "a provenance file", "move it away"):
        return [] if content is None else [item["code_digest"] for item in content.get("earlier", [])]


def write_provenance(path: Path, provenance: Provenance) -> None:
    """Write ``provenance`` atomically; what it replaces stays under ``earlier`` if it differs."""
    content = _content(path)
    earlier: list[dict[str, Any]] = [] if content is None else content.pop("earlier", [])
    if content is not None and content != asdict(provenance):
        earlier.append(content)
    write_atomically(path, json.dumps({**asdict(provenance), "earlier": earlier}, indent=1) + "\n")


def _content(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with reading(path, "a provenance file", "move it away"):
        content = read_json(path)
        if not isinstance(content, dict):
            raise TypeError(f"holds {type(content).__name__}")
    return content
