"""Fixtures of the sweep: settings of a run, and sweeps on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.config.training import training_settings
from qhk.settings.root import Settings
from qhk.sweep.manifest import Manifest, SweepRun, freeze_run, write_manifest
from tests.conftest import repository_catalogue
from tests.sweep.builders import LOCAL, MakeSweep, planned


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The settings of ``qhk train``."""
    return training_settings(["name=base"], [0], repository_catalogue())[0]


@pytest.fixture
def make_sweep(settings: Settings, tmp_path: Path) -> MakeSweep:
    """Makes the sweep "s" on disk: one run for each of the given cells and seeds, none of them started."""

    def make(*cells: str, seeds: Sequence[int] = (0,)) -> Manifest:
        outputs, runs = tmp_path / "outputs", list[SweepRun]()
        manifest = Manifest(
            folder=outputs / "sweeps" / "s",
            cwd=tmp_path,
            overrides=(),
            launcher=LOCAL,
            search=None,
            runs=(),
        )
        for number, cell in enumerate(cells):
            for seed in seeds:
                run = planned(settings, outputs, cell, seed=seed, lr=1e-4 * (number + 1))
                runs.append(replace(run, code="any").frozen())
                freeze_run(manifest, runs[-1], run.settings)
        manifest = replace(manifest, runs=tuple(runs))
        write_manifest(manifest)
        return manifest

    return make
