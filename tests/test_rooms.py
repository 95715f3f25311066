"""Imports go in one direction between rooms, and heavy libraries stay in the rooms that own them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qhk"
FOUNDATION = {"errors", "types", "files", "tasks", "settings"}

MAY_IMPORT = {
    "errors": set[str](),
    "types": {"errors"},
    "files": {"errors"},
    "tasks": {"errors", "types"},
    "settings": {"errors", "types", "tasks"},
    "objective": {"errors", "types"},
    "rewards": {"errors", "types", "tasks"},
    "data": {*FOUNDATION, "rewards"},
    "policy": {*FOUNDATION, "objective", "rewards", "data"},
    "rollout": {*FOUNDATION, "objective", "rewards", "data", "policy"},
    "evaluation": {*FOUNDATION, "objective", "rewards", "data", "policy", "rollout"},
    "tracking": {*FOUNDATION, "data"},
    "pairs": {*FOUNDATION, "rewards", "data", "policy", "rollout", "evaluation"},
    "training": {
        *FOUNDATION,
        "objective",
        "rewards",
        "data",
        "policy",
        "rollout",
        "evaluation",
        "tracking",
    },
    "report": {*FOUNDATION, "evaluation", "tracking"},
    "sweep": {*FOUNDATION, "data", "evaluation", "tracking", "training"},
}
"""Room -> the rooms below it. ``cli`` stands above all."""

OWNERS = {
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "accelerate": {"training/distributed.py"},
    "deepspeed": {"training/distributed.py"},
    "wandb": {"tracking"},
    "submitit": {"sweep/slurm.py", "sweep/slurm_job.py"},
    "optuna": {"sweep/search.py"},
    "av": {"data"},
    "pydantic": {"settings", "cli"},
    "httpx": {"pairs"},
    "skimage": {"pairs"},
    "starlette": {"pairs"},
    "uvicorn": {"pairs"},
    "torch": {"objective", "policy", "rollout", "evaluation", "training", "cli"},
    "transformers": {"policy", "training", "cli"},
}
"""Library -> the rooms or files that may import it."""

FILES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of every imported module, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "qhk":
                yield from (f"qhk.{alias.name}" for alias in node.names)


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_rooms_import_downwards_only(path: Path) -> None:
    room = _room(path)
    if room in ("__init__", "__main__", "cli"):
        return
    assert room in MAY_IMPORT, f"{room} is a new room: say in this test what it may import"
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] == "qhk" and len(parts) > 1 and parts[1] != room:
            assert parts[1] in MAY_IMPORT[room], f"{room} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_libraries_stay_with_their_owners(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    for name in _imports(path):
        owners = OWNERS.get(name.split(".")[0])
        if owners is not None:
            assert _room(path) in owners or place in owners, f"{place} must not import {name}"


def test_directions_have_no_circle() -> None:
    order = list(MAY_IMPORT)
    for place, room in enumerate(order):
        assert MAY_IMPORT[room] <= set(order[:place])
