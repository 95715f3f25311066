from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from qhk.data.miniature import ensure_miniature
from qhk.settings.data import DatasetSettings
from tests.conftest import repository_catalogue

REPOSITORY = Path(__file__).parents[2]
ENTRIES = repository_catalogue().dataset
REAL_DATA = REPOSITORY.parent / "shared" / "data"


def no_progress(done: int, total: int) -> None:
    pass


def conf_entry(name: str, **changes: object) -> DatasetSettings:
    """The entry of conf/dataset as the config gives it; interpolations are left as text."""
    values = OmegaConf.to_container(ENTRIES[name], resolve=False)
    assert isinstance(values, dict)
    return DatasetSettings.model_validate(values | changes)


@pytest.fixture(scope="session")
def miniature_cache(miniature_cache: Path) -> Path:
    """The cache, which holds the eight sets at seed 0, size 64."""
    ensure_miniature(miniature_cache, seed=0, size=64, progress=no_progress)
    return miniature_cache
