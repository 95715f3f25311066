"""The code and data that a run would have now: read once for all runs, equal to what the run records."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from qhk.settings.root import Settings
from qhk.sweep import sharing
from qhk.sweep.sharing import CurrentInputs
from qhk.tracking.code import run_code


def no_progress(label: str) -> Any:
    return nullcontext(lambda done, total: None)


class Loaded:
    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint


def test_each_set_is_read_once_however_many_runs_read_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def load(name: str, spec: Any, **options: Any) -> Loaded:
        read.append(name)
        return Loaded(f"{name} {spec.root}")

    monkeypatch.setattr(sharing, "load_dataset_entry", load)
    here = CurrentInputs(no_progress)
    others = [settings.model_copy(update={"seed": seed}) for seed in range(30)]
    found = [here.data(one) for one in others]
    assert sorted(read) == sorted(settings.dataset) and len(read) > 1
    assert all(one == found[0] for one in found) and found[0].keys() == settings.dataset.keys()

    name, entry = next(iter(settings.dataset.items()))
    moved = {**settings.dataset, name: entry.model_copy(update={"root": "elsewhere"})}
    assert here.data(settings.model_copy(update={"dataset": moved}))[name] == f"{name} elsewhere"
    assert len(read) == len(settings.dataset) + 1


def test_a_set_that_cannot_be_read_says_so_each_time_and_is_tried_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def load(name: str, spec: Any, **options: Any) -> Loaded:
        tried.append(name)
        raise ValueError(f"dataset.{name}.root: no folder")

    monkeypatch.setattr(sharing, "load_dataset_entry", load)
    here = CurrentInputs(no_progress)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"root: no folder"):
            here.data(settings)
    assert len(tried) == 1


def test_code_is_what_a_run_would_record(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    here = CurrentInputs(no_progress)
    assert here.code(settings) == run_code(settings)
    monkeypatch.setattr(sharing, "run_code", lambda one: "never asked again")
    assert here.code(settings.model_copy(update={"seed": 5})) == run_code(settings)
