"""Small pairs for tests, with and without pictures."""

from __future__ import annotations

from typing import Any

from qhk.pairs.records import Copy, DegradationStep, Source, pair_row, strengthened_row


def source(name: str = "a.png", **changes: Any) -> Source:
    values: dict[str, Any] = {
        "example_id": name,
        "dataset": "set",
        "split": "train",
        "path": f"images/{name}",
        "sha256": "0" * 64,
        "width": 40,
        "height": 30,
        "mos": 3.25,
        "mos_native": 56.25,
        "higher_is_better": True,
        "mos_std": 0.5,
        "reference": None,
        "labels": {"severity": "mild"},
    }
    return Source(**values | changes)


def degraded(*types: str, path: str = "copies/a.png") -> Copy:
    steps = tuple(DegradationStep(type=type_, strength=2.0, seed=0, level="stage_1") for type_ in types)
    return Copy(path=path, sha256="1" * 64, degradations=steps, ssim=0.75)


def row(number: int, *types: str, **changes: Any) -> dict[str, Any]:
    name = f"{number}.png"
    return pair_row(f"group_{number:06d}", source(name, **changes), degraded(*types or ("blur",)))


def second(number: int, *types: str) -> dict[str, Any]:
    return strengthened_row(f"group_{number:06d}", degraded(*types or ("blur", "noise"), path="copies/b.png"))
