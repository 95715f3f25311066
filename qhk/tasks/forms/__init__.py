"""The forms of task: every file of this folder is one, found by its name. This folder is their only list."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Protocol

from qhk.errors import UserError
from qhk.tasks.task import Task


class TaskKeys(Protocol):
    """The keys of the config node ``task``."""

    @property
    def form(self) -> str: ...
    @property
    def answer_rule(self) -> str: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@cache
def form_names() -> tuple[str, ...]:
    """Return the names of all forms, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@cache
def find_form(name: str) -> type[Task]:
    """Return the class ``TASK`` of the file ``name``. Raises ``UserError`` where there is none."""
    if name not in form_names():
        raise UserError(f"form: unknown form {name!r}; use one of {', '.join(form_names())}")
    form: type[Task] = importlib.import_module(f"{__name__}.{name}").TASK
    return form


def build_task(keys: TaskKeys) -> Task:
    """Return the task of a config node. Raises ``UserError`` for an unknown form or answer rule."""
    return find_form(keys.form)(answer_rule=keys.answer_rule, low=keys.low, high=keys.high)
