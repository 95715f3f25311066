"""A run's settings as each of its tasks sees them."""

from __future__ import annotations

from qhk.settings.root import Settings


def task_views(settings: Settings) -> dict[str, Settings]:
    """The run's tasks by name, each as the settings of a run that had no other; the main one comes first.

    The main task is called by its form, each other one by its name in ``mixture``.
    """
    views: dict[str, Settings] = {settings.task.form: settings.model_copy(update={"mixture": {}})}
    for name, part in settings.mixture.items():
        own = {key: part.__dict__[key] for key in ("task", "prompt", "reward", "data", "benchmark")}
        views[name] = settings.model_copy(update={"mixture": {}, **own})
    return views


def task_shares(settings: Settings) -> dict[str, float]:
    """The share of all prompts that each task gets, by the names of ``task_views``; they add up to 1."""
    others = {name: part.share for name, part in settings.mixture.items()}
    return {settings.task.form: 1.0 - sum(others.values()), **others}
