"""A run's settings as each of its stages, and each task of a stage, sees them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from qhk.settings.data import DatasetSettings
from qhk.settings.root import Settings
from qhk.tasks import Task, build_task

TASK_NODES = ("task", "prompt", "reward", "data", "benchmark", "loading")
"""The nodes that belong to one task; ``loading`` may be the run's."""


@dataclass(frozen=True, kw_only=True)
class StageView:
    """One stage: its name, its settings as a run's of its own, and its keys of ``StageSettings``."""

    name: str
    share: float
    reference: str
    schedules: str
    settings: Settings


def stage_views(settings: Settings) -> list[StageView]:
    """Return the run's stages in order, each as the settings of a run that had no other.

    A run without ``stages`` is one stage without a name, whose settings are the run's own.
    """
    if not settings.stages:
        return [StageView(name="", share=1.0, reference="run_start", schedules="stage", settings=settings)]
    return [
        StageView(
            name=name,
            share=stage.share,
            reference=stage.reference,
            schedules=stage.schedules,
            settings=settings.model_copy(update={"stages": {}, **stage.replaced}),
        )
        for name, stage in sorted(settings.stages.items(), key=lambda item: item[1].place)
    ]


def task_views(settings: Settings) -> dict[str, Settings]:
    """Return the tasks of a stage by name, main one first, each as the settings of a run that had no other.

    The main task is called by its form, each other one by its name in ``mixture``.
    """
    views: dict[str, Settings] = {settings.task.form: settings.model_copy(update={"mixture": {}})}
    for name, part in settings.mixture.items():
        own = {key: part.__dict__[key] for key in TASK_NODES if part.__dict__[key] is not None}
        views[name] = settings.model_copy(update={"mixture": {}, **own})
    return views


def build_tasks(settings: Settings) -> dict[str, Task]:
    """Return the tasks of a stage, by the names of ``task_views``."""
    return {name: build_task(view.task) for name, view in task_views(settings).items()}


def task_shares(settings: Settings) -> dict[str, float]:
    """Return the share of all prompts that each task gets, by the names of ``task_views``; the sum is 1."""
    others = {name: part.share for name, part in settings.mixture.items()}
    return {settings.task.form: 1.0 - sum(others.values()), **others}


def trained_sets(settings: Settings) -> set[str]:
    """Return the sets that any task of any stage trains on."""
    views = [view for stage in stage_views(settings) for view in task_views(stage.settings).values()]
    return {name for view in views for name in view.data}


def seen_sets(trained: Settings, judged: Mapping[str, DatasetSettings]) -> set[str]:
    """Return which of the ``judged`` sets a run trained on, by name or by the folder that both lie in."""
    names = trained_sets(trained)
    roots = {_root(trained.dataset[name]) for name in names} - {None}
    return {name for name, entry in judged.items() if name in names or _root(entry) in roots}


def _root(entry: DatasetSettings) -> str | None:
    """Return the folder of a set; of a miniature one, which is a name and no path, marked as such."""
    if entry.root is None:
        return None
    return f"miniature {entry.root}" if entry.miniature else os.path.abspath(entry.root)


def stage_at(settings: Settings, step: int) -> str:
    """Return the name of the stage that a step of the run, counted from 1, belongs to (0: to the first).

    The last one's where the run's length is in epochs, whose steps the settings alone do not tell.
    """
    views, steps, done = stage_views(settings), settings.training.duration.steps, 0.0
    for view in views:
        done += view.share
        if steps is not None and step <= round(steps * done):
            return view.name
    return views[-1].name


def reward_modules(settings: Settings) -> set[str]:
    """Return the modules outside this package that any task of any stage takes a reward from."""
    views = [view for stage in stage_views(settings) for view in task_views(stage.settings).values()]
    targets = [term.target for view in views for term in view.reward.terms.values()]
    return {target.rpartition(".")[0] for target in targets if not target.startswith("qhk.")}
