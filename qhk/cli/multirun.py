"""Several jobs through Hydra's own launcher machinery."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from qhk.cli.catalogue import Catalogue
from qhk.cli.command import primary_config
from qhk.cli.compose import VERSION_BASE, register


def launch(command: str, overrides: Sequence[str], catalogue: Catalogue, run: Callable[[int], None]) -> None:
    """Has Hydra's sweeper and launcher call ``run`` with the number of each job, from 0, in order."""
    register(catalogue)
    GlobalHydra.instance().clear()

    def task(config: DictConfig) -> None:
        run(int(HydraConfig.get().job.num))

    with _command_line([f"qhk {command}", *overrides, "--multirun"]):
        hydra.main(config_path=None, config_name=primary_config(command), version_base=VERSION_BASE)(task)()


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """``sys.argv``, which Hydra reads, holds the words inside the block."""
    before = sys.argv
    sys.argv = words
    try:
        yield
    finally:
        sys.argv = before
