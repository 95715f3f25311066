"""What spreading a model over processes leaves as it was, without other processes."""

from __future__ import annotations

from typing import Any

import torch
from transformers.core_model_loading import revert_weight_conversion

from qhk.training.sharding import _remember_names
from tests.conftest import build_policy


def saved_names(model: Any) -> set[str]:
    return set(revert_weight_conversion(model, dict(model.state_dict())))


def test_a_model_of_another_class_is_saved_by_the_names_of_its_own() -> None:
    """FSDP2 gives the model a class of its own, and transformers looks names up by that."""
    model = build_policy(dtype=torch.float32).model
    stock, names = type(model), saved_names(model)
    renamed = type(f"FSDP{stock.__name__}", (stock,), {"__module__": stock.__module__})
    model.__class__ = renamed
    assert saved_names(model) != names
    model.__class__ = stock
    _remember_names(model)
    model.__class__ = renamed
    assert saved_names(model) == names
