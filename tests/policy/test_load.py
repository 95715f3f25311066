"""What a loaded policy rests on."""

from __future__ import annotations

from pathlib import Path

import torch

from qhk.policy.load import load_policy, save_policy
from tests.conftest import build_policy


def test_loaded_weights_lie_in_memory_as_built_ones_do(tmp_path: Path) -> None:
    """Aligned like any tensor of torch's own, and safe from whatever happens to the file."""
    policy = build_policy(dtype=torch.float32)
    save_policy(policy, tmp_path)
    loaded = load_policy(str(tmp_path), dtype="float32", min_pixels=256, max_pixels=4096, device="cpu")
    assert {weight.data_ptr() % 64 for weight in loaded.model.parameters()} == {0}
    (tmp_path / "model.safetensors").write_bytes(b"")
    weights = dict(policy.model.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in loaded.model.named_parameters())
