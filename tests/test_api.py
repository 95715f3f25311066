"""``qhk.load`` and ``qhk.read_runs``, on a checkpoint and a run of an earlier version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import qhk
from qhk.errors import UserError
from tests.stored.make import place


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its checkpoint and some pictures, as an earlier version left them."""
    folder = tmp_path_factory.mktemp("stored")
    place(Path(__file__).parent / "stored" / "v1", folder)
    return folder


@pytest.fixture(scope="module")
def scorer(stored: Path) -> qhk.Scorer:
    return qhk.load(stored / "outputs" / "stored" / "g2" / "seed0" / "checkpoints" / "last")


def test_importing_the_package_brings_nothing_heavy() -> None:
    code = "import sys, qhk; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="lode"):
        qhk.lode  # noqa: B018


def test_a_checkpoint_scores_one_image_and_several_alike(scorer: qhk.Scorer, stored: Path) -> None:
    images = sorted((stored / "photos" / "images").glob("*.png"))[:2]
    one = scorer.score(images[0], num_samples=4)
    both = scorer.score_all(images, num_samples=4)
    assert both[0] == one and len(both) == 2
    assert one.unparsed + sum(sample is not None for sample in one.samples) == 4


def test_wrong_folders_images_and_numbers_are_one_line(scorer: qhk.Scorer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        qhk.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"none\.png"):
        scorer.score(tmp_path / "none.png")
    with pytest.raises(UserError, match="num_samples=0"):
        scorer.score(tmp_path / "none.png", num_samples=0)


def test_runs_are_read(stored: Path) -> None:
    runs = qhk.read_runs(stored / "outputs")
    assert set(runs.runs.method) == {"g2", "g4"} and len(runs.predictions) > 0
