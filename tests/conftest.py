"""The repository's own config, composed; and a small random policy of the real class."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qhk.cli import main as command_line
from qhk.config.catalogue import Catalogue, config_root, read_catalogue
from qhk.config.compose import compose_config, plain_config
from qhk.policy.load import Policy, prepare_model
from qhk.policy.prompt import EncodedPrompt
from qhk.policy.tiny import build_tiny, tiny_config, tiny_image_processor
from qhk.policy.tokenizer import build_tokenizer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUESTION = "Rate the image quality from 1 to 5."
MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
]


def build_policy(
    *,
    family: str = "qwen2_5_vl",
    dtype: torch.dtype = torch.float64,
    kv_heads: int = 2,
    depth: int = 2,
    full_attention: bool = False,
) -> Policy:
    """Grouped-query attention, windowed and full vision blocks, images of 32 x 32 to 96 x 96 pixels."""
    tokenizer = build_tokenizer(
        [QUESTION, "You are a helpful assistant.", "blurred noisy"], num_merged_tokens=60
    )
    config = tiny_config(
        tokenizer,
        family=family,
        patch_size=8,
        merge_size=2,
        vision_depth=2,
        vision_hidden=32,
        vision_mlp=64 if family == "qwen2_vl" else 48,
        vision_heads=2,
        depth=depth,
        hidden=64,
        mlp=96,
        heads=4,
        kv_heads=kv_heads,
        initializer_range=0.2,
    )
    if not full_attention and family == "qwen2_5_vl":
        config.vision_config.fullatt_block_indexes = [1]
        config.vision_config.window_size = 32
    model = prepare_model(build_tiny(config, seed=3)).to(dtype).eval()
    processor = tiny_image_processor(patch_size=8, merge_size=2, min_pixels=256, max_pixels=96 * 96)
    return Policy(model=model, tokenizer=tokenizer, image_processor=processor)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of uniform noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def pytest_configure() -> None:
    """Signals act as they do in a terminal, also where the tests were started in the background.

    A shell lets its background jobs ignore Ctrl-C, and ``nohup`` the closing of the terminal; processes that
    tests start would inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take long come first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """The garbage collector leaves alone what is imported by now, which stays until the end.

    Walking through the half million objects of the libraries, again and again, was a fifth of the time of
    composing.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def miniature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one cache of generated sets of all tests and workers; what is missing, a run generates there."""
    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "miniature"
    cache.mkdir(exist_ok=True)
    return cache


@cache
def repository_catalogue() -> Catalogue:
    """Return the repository's own YAML files, read once for all tests, and what they composed to lately."""
    return read_catalogue(config_root())


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return repository_catalogue()


@pytest.fixture(scope="session")
def compose_plain(catalogue: Catalogue) -> Callable[..., dict[str, Any]]:
    """The resolved plain config of a command and its overrides."""

    def compose(*overrides: str, command: str = "train") -> dict[str, Any]:
        return plain_config(compose_config(command, overrides, catalogue))

    return compose


Qhk = Callable[..., tuple[int, str, str]]
"""Runs a command line: (exit code, stdout, stderr)."""


@pytest.fixture(scope="session", autouse=True)
def one_catalogue(catalogue: Catalogue) -> Iterator[None]:
    """Lets command lines take the repository's YAML files as they were read once for all tests."""
    own_root = config_root()

    def read(root: Path, own: Sequence[Path] = ()) -> Catalogue:
        return read_catalogue(root, own) if own or root != own_root else catalogue

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "read_catalogue", read)
        yield


@pytest.fixture
def qhk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Qhk:
    """Runs command lines in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = command_line.main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def policy() -> Policy:
    return build_policy()


@pytest.fixture
def encode(policy: Policy) -> Callable[[int, int], EncodedPrompt]:
    """Encodes the test question about a picture of the given width and height."""
    return lambda width, height: policy.encoder.encode(MESSAGES, [picture(width, height, seed=width)])


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes transformers' two float32 islands, so that float64 comparisons reach float64 rounding."""
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
    from transformers.models.qwen2_vl import modeling_qwen2_vl
    from transformers.models.qwen3_vl import modeling_qwen3_vl

    def norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        return (
            self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        )

    def rotate(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[Any, Any]:
        cos, sin = cos.unsqueeze(-2).to(q.dtype), sin.unsqueeze(-2).to(q.dtype)
        half = modeling_qwen2_vl.rotate_half
        return tuple(x * cos + half(x) * sin for x in (q, k))  # type: ignore[return-value]

    for modeling, name in (
        (modeling_qwen2_5_vl, "Qwen2_5_VLRMSNorm"),
        (modeling_qwen2_vl, "Qwen2VLRMSNorm"),
        (modeling_qwen3_vl, "Qwen3VLTextRMSNorm"),
    ):
        monkeypatch.setattr(getattr(modeling, name), "forward", norm)
        monkeypatch.setattr(modeling, "apply_rotary_pos_emb_vision", rotate)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Return a real Chromium for tests of pages."""
    if CHROMIUM is None:
        pytest.skip("NO PAGE WAS TESTED: no chromium on this machine; apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="NO PAGE WAS TESTED: no playwright")
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        # Half a minute is too short on a busy machine.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=180_000)
        yield browser
        browser.close()
