"""Runs small enough for a test: the real command's settings, a handful of images, a few steps.

Their cold start learns a dozen images by heart, so that answers can be read and rewards differ. It is most
of such a run, so tests of whole runs go on from a policy that it has taught already.
"""

from __future__ import annotations

import fcntl
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from qhk.config.training import training_settings
from qhk.settings.identity import run_directory
from qhk.settings.parse import plain_settings
from qhk.settings.root import Settings
from qhk.tracking.recorder import MetricsRecorder
from qhk.training import loop
from qhk.training.begin import begin
from qhk.training.distributed import Processes
from qhk.training.launch import open_directory
from qhk.training.loop import train
from qhk.training.run import Run
from qhk.training.stages import fingerprints, load_stages
from tests.conftest import repository_catalogue

SMALL = (
    "training=debug",
    "data={miniature_spaq:342}",
    "loading.limit=12",
    "loading.validation_limit=6",
    "benchmark={miniature_spaq:{limit:6}}",
    "evaluation.bootstrap=10",
    "cold_start.steps=40",
    "cold_start.lr=3e-3",
    "loading.augmentation=none",
    "cold_start.batch_size=8",
    "cold_start.warmup_steps=3",
    "cold_start.num_examples=12",
    "cold_start.label_noise=0",
    "cold_start.validate_every=20",
    "rollout.group_size=3",
    "model.tiny.whitening_images=8",
    "training.threads=1",
    "tracking=none",
)
"""A run from nothing."""


def taught_words(taught: Path) -> tuple[str, ...]:
    """``SMALL`` from the policy that its cold start ends with, and one more step of that."""
    replaced = ("model", "cold_start.steps", "cold_start.lr", "cold_start.warmup", "cold_start.validate")
    kept = [word for word in SMALL if not word.startswith(replaced)]
    once = ("cold_start.steps=1", "cold_start.warmup_steps=0", "cold_start.lr=1e-5")
    return (*kept, "model=checkpoint", f"model.path={taught}", *once, "cold_start.validate_every=1")


class ListDisplay:
    """A display that remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def task(self, label: str) -> Any:
        from contextlib import nullcontext

        return nullcontext(lambda done, total: None)

    def line(self, text: str) -> None:
        self.lines.append(text)


def small_settings(
    root: Path,
    cache: Path,
    *overrides: str,
    name: str = "run",
    base: Sequence[str] = SMALL,
    seed: int = 0,
) -> Settings:
    """Settings of a small run that writes below ``root``, with further overrides."""
    own = (f"name={name}", f"paths.outputs={root}", f"paths.cache={cache}")
    (settings,) = training_settings([*base, *overrides, *own], [seed], repository_catalogue())
    return settings


def prepared_run(settings: Settings) -> Run:
    """A run, ready for ``train``."""
    display = ListDisplay()
    stages = load_stages(settings, display)
    processes = Processes("single")
    directory = open_directory(settings, fingerprints(stages), processes)
    return Run(
        stages=stages,
        config=plain_settings(settings),
        directory=directory,
        recorders=[MetricsRecorder(directory.metrics)],
        display=display,
        processes=processes,
    )


def finish(run: Run) -> Path:
    """The directory of the run after training it."""
    with run.directory:
        train(run)
    return run.directory.path


def interrupt(run: Run, *, before: int) -> None:
    """Train until Ctrl-C comes a second time, before that step (counted from 0)."""
    take_step = loop._take_step

    def stopping(run: Run, *args: Any, **kwargs: Any) -> Any:
        if kwargs["step"] == before:
            raise KeyboardInterrupt
        return take_step(run, *args, **kwargs)

    with patch.object(loop, "_take_step", stopping), pytest.raises(KeyboardInterrupt):
        finish(run)


@pytest.fixture(scope="session")
def taught(miniature_cache: Path) -> Path:
    """The policy behind the cold start of ``SMALL``: made by one of the workers, for all."""
    root = miniature_cache.with_name("taught")
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        settings = small_settings(root, miniature_cache, "benchmark=[]")
        policy = run_directory(settings) / "checkpoints" / "step_000000"
        if not policy.is_dir():
            run = prepared_run(settings)
            with run.directory:
                begin(run)
    return policy


@pytest.fixture(scope="session")
def base(taught: Path) -> tuple[str, ...]:
    """The words of a small run that goes on from the taught policy."""
    return taught_words(taught)


@pytest.fixture
def taught_small(small: Callable[..., Settings], base: tuple[str, ...]) -> Callable[..., Settings]:
    """Settings of a small run that goes on from the taught policy, with further overrides."""
    return functools.partial(small, base=base)


@pytest.fixture
def small(tmp_path: Path, miniature_cache: Path) -> Callable[..., Settings]:
    """Settings of a small run, with further overrides; ``name`` keeps runs apart, ``base`` replaces words."""

    def build(*overrides: str, name: str = "run", base: Sequence[str] = SMALL, seed: int = 0) -> Settings:
        return small_settings(tmp_path, miniature_cache, *overrides, name=name, base=base, seed=seed)

    return build


@pytest.fixture
def open_run() -> Callable[[Settings], Run]:
    """Opens a run of the given settings."""
    return prepared_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path, base: tuple[str, ...]) -> Path:
    """The directory of one small run as it is, for tests that only look."""
    run = prepared_run(small_settings(tmp_path_factory.mktemp("finished"), miniature_cache, base=base))
    with run.directory:
        train(run)
    return run.directory.path
