"""Runs small enough for a test: the real command's settings, a handful of images, a few steps.

Their cold start learns a dozen images by heart, so that answers can be read and rewards differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qhk.cli.job import prepare
from qhk.config.catalogue import config_root, read_catalogue
from qhk.settings import Settings, plain_settings
from qhk.tracking.recorder import MetricsRecorder
from qhk.training.distributed import Processes
from qhk.training.launch import open_directory
from qhk.training.loop import train
from qhk.training.run import Run
from qhk.training.stages import fingerprints, load_stages

SMALL = (
    "training=debug",
    "data={miniature_spaq:342}",
    "loading.limit=12",
    "loading.validation_limit=6",
    "benchmark={miniature_spaq:{limit:6}}",
    "evaluation.bootstrap=10",
    "cold_start.steps=40",
    "cold_start.lr=3e-3",
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


class ListDisplay:
    """A display that remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def task(self, label: str) -> Any:
        from contextlib import nullcontext

        return nullcontext(lambda done, total: None)

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="session")
def miniature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of generated sets for all tests of the session."""
    return tmp_path_factory.mktemp("cache")


def small_settings(root: Path, cache: Path, *overrides: str, base: Sequence[str] = SMALL) -> Settings:
    """Settings of a small run that writes below ``root``, with further overrides."""
    paths = (f"paths.outputs={root}", f"paths.cache={cache}", "name=run")
    return prepare("train", [*base, *paths, *overrides], read_catalogue(config_root())).settings


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


@pytest.fixture
def small(tmp_path: Path, miniature_cache: Path) -> Callable[..., Settings]:
    """Settings of a small run, with further overrides; ``name`` keeps runs apart."""

    def build(*overrides: str, name: str = "run", base: Sequence[str] = SMALL) -> Settings:
        return small_settings(tmp_path, miniature_cache, *overrides, f"name={name}", base=base)

    return build


@pytest.fixture
def open_run() -> Callable[[Settings], Run]:
    """Opens a run of the given settings."""
    return prepared_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, miniature_cache: Path) -> Path:
    """The directory of one small run as it is, for tests that only look."""
    run = prepared_run(small_settings(tmp_path_factory.mktemp("finished"), miniature_cache))
    with run.directory:
        train(run)
    return run.directory.path
