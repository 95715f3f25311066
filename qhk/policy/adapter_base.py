"""Which weights an adapter belongs to, and what can be said of its files without the model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qhk.errors import UserError
from qhk.files import file_digest, read_json, reading, typed
from qhk.policy.contents import CONTENTS_FILE, THREADS, read_contents
from qhk.settings.root import Settings

ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FILE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_base.json",
)
"""The first two are peft's; the third says which weights the adapter belongs to."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The weights that an adapter belongs to.

    ``path`` is a hub id or a folder, relative to the adapter's own where it begins with a dot; ``sha256`` is
    the digest of its weight files, None where the adapter's writer did not say; ``bits`` is 4 where they are
    read quantised, else None.
    """

    path: str
    sha256: str | None
    bits: int | None

    def beside(self, folder: Path) -> str:
        """Return where the weights are, for an adapter in ``folder``."""
        return str((folder / self.path).resolve()) if self.path.startswith(".") else self.path


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def bits_problem() -> str:
    """Return why weights cannot be read in 4 bits; empty where the library for that is installed."""
    if importlib.util.find_spec("bitsandbytes") is not None:
        return ""
    return "adapter=qlora needs the extra qlora; install it: pip install 'qhk[qlora]'"


def start_problems(settings: Settings) -> list[str]:
    """Return a line for each reason why a run cannot start from its weights, as far as their files say."""
    path, lines = settings.model.path, list[str]()
    if path is not None and is_adapter(Path(path)):
        # Its start would be of two parts, of which a new adapter would have to name both.
        lines.append(
            f"model.path: {path} holds an adapter; qhk export {path} merges it, give what that makes"
        )
    if settings.adapter is not None and settings.adapter.form == "qlora" and bits_problem():
        lines.append(bits_problem())
    return lines


def read_base(folder: Path) -> Base:
    """Return the weights that the adapter in ``folder`` belongs to.

    Raises ``UserError`` where it does not say.
    """
    if not (folder / BASE_FILE).is_file():
        path = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        if not isinstance(path, str) or not path:
            raise UserError(f"{folder / ADAPTER_CONFIG}: base_model_name_or_path must name the base model")
        return Base(path=path, sha256=None, bits=None)
    with reading(folder / BASE_FILE, "a record of base weights", "put the file back"):
        return typed(Base, read_json(folder / BASE_FILE))


def weights_digest(folder: Path) -> str:
    """Return a digest of a model's weight files, by name and content.

    Their own digests come from the folder's list where it has one.
    """
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
    listed = read_contents(folder) if (folder / CONTENTS_FILE).is_file() else {}
    missing = [name for name in files if name not in listed]
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(missing, pool.map(file_digest, (folder / name for name in missing)), strict=True))
    rows: Sequence[tuple[str, str]] = [(name, found.get(name) or listed[name]["sha256"]) for name in files]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
