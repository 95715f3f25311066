"""Adapters: one module per format, called like the adapter; each holds one ``ADAPTER``.

A new module is known without further ado: ``conf/dataset`` entries name it by ``adapter``.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from qhk.data.adapter import Adapter


def adapter_names() -> list[str]:
    """Return the names of all adapters, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_adapter(name: str) -> Adapter:
    """Return the adapter called ``name``, one of ``adapter_names()``."""
    adapter = import_module(f"{__name__}.{name}").ADAPTER
    assert isinstance(adapter, Adapter), name
    return adapter
