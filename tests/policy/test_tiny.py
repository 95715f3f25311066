"""The sizes that the settings accept make a model that works, and the ones beside them do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from qhk.cli.job import prepare
from qhk.policy.load import prepare_model
from qhk.policy.start import start_policy
from qhk.policy.tiny import build_tiny, tiny_config, tiny_image_processor
from qhk.policy.tokenizer import build_tokenizer
from qhk.settings.model import TinySettings
from tests.conftest import picture, repository_catalogue

SIZES = {
    "patch_size": 8,
    "merge_size": 2,
    "vision_depth": 1,
    "vision_hidden": 32,
    "vision_mlp": 16,
    "vision_heads": 2,
    "depth": 1,
    "hidden": 32,
    "mlp": 16,
    "heads": 2,
    "kv_heads": 2,
    "initializer_range": 0.05,
}


def works(sizes: dict[str, Any]) -> bool:
    """Whether a picture and a few words go through the model."""
    tokenizer = build_tokenizer(["abc"], num_merged_tokens=4)
    config = tiny_config(tokenizer, **sizes)
    patch, merge = sizes["patch_size"], sizes["merge_size"]
    processor = tiny_image_processor(patch_size=patch, merge_size=merge, min_pixels=4096, max_pixels=4096)
    pixels = processor(images=[picture(64, 64)], return_tensors="pt")
    image = [config.image_token_id] * (int(pixels["image_grid_thw"].prod()) // merge**2)
    ids = torch.tensor([[config.vision_start_token_id, *image, 5, 6]])
    try:
        model = prepare_model(build_tiny(config, seed=0)).eval()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            out = model(input_ids=ids, mm_token_type_ids=(ids == config.image_token_id).int(), **pixels)
    except RuntimeError:
        return False
    return bool(torch.isfinite(out.logits).all())


@pytest.mark.parametrize(("mean", "dark", "bright"), [(0.5, -1.0, 1.0), (0.0, 0.0, 2.0)])
def test_the_settings_say_which_brightness_is_zero(mean: float, dark: float, bright: float) -> None:
    words = [f"model.tiny.image_mean={mean}", "model.tiny.whiten=false"]
    settings = prepare("train", words, repository_catalogue()).settings
    policy = start_policy(settings, [], stages=[settings], device="cpu")
    for colour, value in ((0, dark), (255, bright)):
        pixels, _ = policy.encoder.encode_pixels([Image.new("RGB", (64, 64), (colour,) * 3)])
        assert pixels.min() == pixels.max() == pytest.approx(value)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("hidden", (2, 4, 6, 10, 14, 20)),
        ("vision_hidden", (4, 6, 8, 12, 16, 20, 24)),
        ("kv_heads", (1, 2, 3)),
        ("heads", (1, 2, 4)),
        ("patch_size", (1, 5, 64)),
        ("merge_size", (1, 3)),
    ],
)
def test_accepted_sizes_work(key: str, values: tuple[int, ...]) -> None:
    for value in values:
        sizes = {**SIZES, key: value}
        rest = {"whiten": False, "whitening_epsilon": 1e-3, "whitening_images": 1}
        try:
            TinySettings.model_validate({**sizes, **rest})
            accepted = True
        except ValueError:
            accepted = False
        assert works(sizes) == accepted, (key, value)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "qwen3_5"])
def test_accepted_sizes_work_in_every_family(family: str) -> None:
    for changes in ({"hidden": 4}, {"hidden": 20}, {"vision_hidden": 8}, {"heads": 1}, {"merge_size": 3}):
        sizes = {**SIZES, "kv_heads": 1, **changes}
        sizes["vision_mlp"] = 2 * sizes["vision_hidden"]
        rest = {"whiten": False, "whitening_epsilon": 1e-3, "whitening_images": 1}
        TinySettings.model_validate({**sizes, **rest, "family": family})
        assert works({**sizes, "family": family}), changes


def test_a_tower_whose_config_gives_a_multiple_is_told_so() -> None:
    rest = {"whiten": False, "whitening_epsilon": 1e-3, "whitening_images": 1, "family": "qwen2_vl"}
    with pytest.raises(ValueError, match=r"vision_mlp must be a multiple of 32 \(vision_hidden\), got 16"):
        TinySettings.model_validate({**SIZES, **rest})
