"""How images are degraded: the kinds, the strengths and the names of files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qhk.data.seeds import stream_generator
from qhk.errors import UserError
from qhk.pairs.operations import check_operation, operation
from qhk.settings.pairs import CopySettings
from qhk.settings.root import Settings

STEM_LENGTH = 40


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How copies are made. ``strengths`` holds one number per kind and ``level`` names where they are from.

    With ``target`` (an SSIM, reached within ``tolerance``) strengths are found per image instead.
    """

    kinds: tuple[str, ...]
    level: str
    strengths: Mapping[str, float]
    target: float | None
    tolerance: float
    storage: str
    seed: int

    def values(self) -> dict[str, Any]:
        """Return the plan as the manifest records it."""
        strengths = None if self.target is not None else {kind: self.strengths[kind] for kind in self.kinds}
        return {
            "kinds": list(self.kinds),
            "level": self.level,
            "strengths": strengths,
            "target": self.target,
            "tolerance": None if self.target is None else self.tolerance,
            "storage": self.storage,
            "seed": self.seed,
        }

    def check(self, *, key: str) -> None:
        """Raise ``UserError`` naming ``key`` where a kind is unknown, or its strength missing or wrong."""
        for kind in self.kinds:
            operation(kind)
            if self.target is None and kind not in self.strengths:
                raise UserError(
                    f"{key}.level: {self.level} has no strength for {kind}; add it, choose another level "
                    "or give a target to calibrate to"
                )
            if self.target is None:
                check_operation(kind, self.strengths[kind], key=f"{key}.level: {self.level}: {kind}")


def copy_plan(settings: Settings, copies: CopySettings, *, step: str) -> Plan:
    """Return how a step makes copies. Raises UserError where a kind or strength is not possible."""
    plan = Plan(
        kinds=tuple(copies.kinds),
        level=copies.level,
        strengths=settings.pairs.levels[copies.level],
        target=copies.target,
        tolerance=copies.tolerance,
        storage=copies.storage,
        seed=settings.seed,
    )
    plan.check(key=f"pairs.{step}")
    return plan


def ordered_kinds(plan: Plan, *, group_id: str, version: int, used: Sequence[str]) -> list[str]:
    """Return the kinds that this image may get, in the order in which they are tried; the first is uniform.

    Kinds in ``used`` are left out: a second degradation differs from the first.
    """
    kinds = [kind for kind in plan.kinds if kind not in used]
    order = stream_generator(plan.seed, "pair kind", group_id, version).permutation(len(kinds))
    return [kinds[int(place)] for place in order]


def copy_name(*, example_id: str, group_id: str, kinds: Sequence[str], extension: str) -> str:
    """Return the path of a copy below the folder of copies, unique by the group id and the version.

    Two images of one base name have different ids; nothing depends on the case of letters.
    """
    stem = re.sub(r"[^\w.-]", "_", example_id.rpartition(".")[0] or example_id)
    stem = stem.encode("utf-8", "replace").decode()[-STEM_LENGTH:].lstrip(".-")
    digits = group_id.removeprefix("group_")
    return f"{digits[:2]}/{stem}_{digits}_v{len(kinds)}_{'+'.join(kinds)}{extension}"
