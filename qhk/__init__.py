"""Reinforcement fine-tuning of vision-language models on image quality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qhk.api import Runs, Scorer, load, read_runs

__all__ = ["Runs", "Scorer", "load", "read_runs"]


def __getattr__(name: str) -> Any:
    """Return ``qhk.load`` and its like when they are first asked for: they bring torch and pandas."""
    if name not in __all__:
        raise AttributeError(f"module 'qhk' has no attribute {name!r}")
    import qhk.api

    return getattr(qhk.api, name)
