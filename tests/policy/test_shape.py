"""The shape of a model, read from its config as it was built."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk.cli.job import prepare
from qhk.policy.load import save_policy
from qhk.policy.shape import framing_problems, model_shape
from qhk.policy.start import start_policy
from tests.conftest import repository_catalogue


@pytest.mark.parametrize("option", ["tiny", "tiny_photographs", "tiny_qwen2_vl", "tiny_qwen3_vl"])
def test_a_saved_model_has_the_shape_that_it_was_built_with(option: str, tmp_path: Path) -> None:
    catalogue = repository_catalogue()
    built = prepare("train", [f"model={option}", "model.tiny.whiten=false"], catalogue).settings
    save_policy(start_policy(built, [], stages=[built], device="cpu"), tmp_path / "saved")
    words = ["model=checkpoint", f"model.path={tmp_path / 'saved'}", "framing=crop", "framing.side=64"]
    saved = prepare("train", [*words, "cold_start=none"], catalogue).settings
    shape, read = model_shape(built.model), model_shape(saved.model)
    assert shape is not None and read is not None
    names = ("patch", "merge", "vision_hidden", "vision_layers", "vision_mlp", "hidden", "layers", "mlp")
    assert {name: getattr(read, name) for name in names} == {name: getattr(shape, name) for name in names}
    assert framing_problems(saved) == []
