"""Families of models, found by the ``model_type`` of a config: nothing of one is assumed elsewhere."""

from __future__ import annotations

from typing import Any

from qhk.policy.families.family import Family
from qhk.policy.families.hugging_face import HuggingFace
from qhk.policy.families.qwen import Qwen
from qhk.policy.families.qwen2_5_vl import Qwen25VL
from qhk.policy.families.qwen2_vl import Qwen2VL
from qhk.policy.families.qwen3_5 import Qwen35
from qhk.policy.families.qwen3_vl import Qwen3VL

TINY: dict[str, Qwen] = {family.model_type: family for family in (Qwen2VL(), Qwen25VL(), Qwen3VL(), Qwen35())}
"""Families of which a tiny model can be built."""

FAMILIES: dict[str, Family] = {**TINY}
"""By the model type of a config."""


OTHER = HuggingFace()
"""What is asked of every other model."""


def family_named(model_type: str) -> Family:
    """Return the family of a ``model_type``: the slow way for one that no module here knows."""
    return FAMILIES.get(model_type, OTHER)


def family_of(model: Any) -> Family:
    """Return the family of a model that is in memory."""
    return family_named(model.config.model_type)
