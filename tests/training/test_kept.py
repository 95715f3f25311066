"""What is kept from pass to pass: made once, to the same bits, within its limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel as VisionTower,
)

from qhk.data import image
from qhk.errors import UserError
from qhk.policy.prompt import PromptEncoder
from qhk.settings.root import Settings
from qhk.training import inputs
from qhk.training.kept import Kept
from qhk.training.memory import memory_lines, memory_plan
from qhk.training.run import Run
from tests.training.conftest import finish, interrupt
from tests.training.kill import outcome
from tests.training.test_step import MIXED

Taught = Callable[..., Settings]
OpenRun = Callable[[Settings], Run]

PASSES = (
    "loading.limit=8",
    "training.duration.steps=6",
    "training.validate_every=3",
    "training.validation_readout.num_samples=1",
    "training.prompts_per_device=1",
    "perception=exact",
    "perception.gamma=0.1",
    "objective.kl_coef=0.1",
    "benchmark=[]",
)
"""Eight images, four to a step: three passes, with two validations of the same six."""


def test_the_first_that_fit_stay() -> None:
    kept, made = Kept[str](1), Counter[str]()

    def get(key: str) -> str:
        def make() -> str:
            made[key] += 1
            return key

        return kept.get(key, make, size=lambda value: 2**19 if len(value) == 1 else 2**20)

    keys = ["a", "large", "b", "c", "a", "b", "c"]
    assert [get(key) for key in keys] == keys
    assert made == {"a": 1, "large": 1, "b": 1, "c": 2}
    assert kept.is_full and len(kept) == 2 and kept.num_bytes == 2**20


def test_nothing_is_kept_without_a_limit() -> None:
    kept = Kept[int](0)
    numbers = iter(range(2))
    assert [kept.get("key", lambda: next(numbers), size=lambda value: 1) for _ in range(2)] == [0, 1]
    assert not kept.is_full and len(kept) == 0


def test_threads_share_one_value() -> None:
    kept = Kept[object](1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: kept.get(n % 2, object, size=lambda value: 1), range(200)))
    assert len(set(found)) == 2 and kept.num_bytes == 2


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """How often the processor is called, pictures are decoded, and patches go through the vision tower."""
    seen, encode, load = Counter[str](), PromptEncoder.encode_pixels, image.load_image
    forward = VisionTower.forward

    def encoded(self: Any, images: Sequence[Any]) -> Any:
        seen["encoded"] += 1
        seen[str(hash(b"".join(one.tobytes() for one in images)))] += 1
        return encode(self, images)

    def loaded(path: Path, **keys: Any) -> Any:
        seen["read"] += 1
        return load(path, **keys)

    def patches(self: Any, pixels: torch.Tensor, **keys: Any) -> Any:
        seen["patches"] += len(pixels)
        return forward(self, pixels, **keys)

    with (
        patch.object(PromptEncoder, "encode_pixels", encoded),
        patch.object(inputs, "load_image", loaded),
        patch.object(VisionTower, "forward", patches),
    ):
        yield seen


@pytest.mark.parametrize(("augmentation", "workers"), [("none", 0), ("flip", 2)])
def test_the_processor_is_called_once_for_each_picture_and_changes_no_bit(
    taught_small: Taught, open_run: OpenRun, augmentation: str, workers: int
) -> None:
    """A turned picture is another one, and so is its degraded twin."""
    words = (*PASSES, f"loading.augmentation={augmentation}", f"loading.workers={workers}")
    found, seen = [], []
    for limit in (0, 64):
        run = open_run(taught_small(*words, f"loading.keep_encoded={limit}", name=f"keeps{limit}"))
        with counted() as counts:
            found.append(outcome(finish(run)))
        seen.append(counts)
        assert not any("full" in line for line in run.display.lines)
    anew, kept = seen
    ours = [one.pop("record") for one in found]
    assert ours[0] == ours[1] and found[0]["weights"] == found[1]["weights"]
    times = [{key: count for key, count in one.items() if key[-1].isdigit()} for one in seen]
    assert times[0].keys() == times[1].keys()
    # The cold start, which ends before, keeps what it encoded for itself.
    assert max(times[1].values()) <= 2 < max(times[0].values())
    assert kept["encoded"] < 0.75 * anew["encoded"] and kept["read"] < anew["read"]


def test_a_full_memory_is_told_once_and_changes_no_bit(taught_small: Taught, open_run: OpenRun) -> None:
    words = (*PASSES, "loading.keep_encoded=1")
    run = open_run(taught_small(*words, name="little"))
    found = outcome(finish(run))
    told = [line for line in run.display.lines if "full" in line]
    assert len(told) == 1 and told[0].startswith("note: loading.keep_encoded: 1 MiB are full with ")
    plain = outcome(finish(open_run(taught_small(*words[:-1], name="nothing"))))
    assert found["record"] == plain["record"] and found["weights"] == plain["weights"]


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen tower", "reference"])
def test_features_are_made_once_for_each_picture(
    taught_small: Taught, open_run: OpenRun, frozen: bool
) -> None:
    """Bit for bit those of one prompt at a time; a tower that learns is asked anew, its reference is not."""
    words = (*PASSES, f"model.freeze_vision={str(frozen).lower()}", "training.validate_every=100")
    found, seen = [], []
    for limit in (0, 64):
        run = open_run(taught_small(*words, f"loading.keep_features={limit}", name=f"features{limit}"))
        with counted() as counts:
            found.append(outcome(finish(run)))
        seen.append(counts["patches"])
    assert found[0]["record"] == found[1]["record"] and found[0]["weights"] == found[1]["weights"]
    assert seen[1] < (0.6 if frozen else 0.9) * seen[0]


def test_a_resumed_run_makes_its_features_anew_to_the_same_bits(
    taught_small: Taught, open_run: OpenRun
) -> None:
    """Pictures are encoded one by one, so it does not matter beside which others they come first."""
    words = (*PASSES, "model.freeze_vision=true", "loading.keep_features=64")
    words += ("training.prompts_per_device=4", "training.checkpoint_every=3")
    whole = outcome(finish(open_run(taught_small(*words, name="whole"))))
    settings = taught_small(*words, name="parts")
    interrupt(open_run(settings), before=4)
    parts = outcome(finish(open_run(settings)))
    assert parts["record"] == whole["record"]
    assert parts["weights"]["last"] == whole["weights"]["last"]


def test_the_plan_counts_what_may_be_kept(taught_small: Taught) -> None:
    """In the memory of a run on a CPU; beside that of a GPU, where nothing of it lies."""
    plain, keeps = taught_small(), taught_small("loading.keep_encoded=100", "loading.keep_features=28")
    plans = [memory_plan(settings, on_cpu=True) for settings in (plain, keeps)]
    assert plans[0] is not None and plans[1] is not None
    assert plans[1].total - plans[0].total == 128 * 2**20
    lines = memory_lines(keeps, answer_tokens=14, on_cpu=False)
    assert lines[2:4] == [
        "           beside the GPU, up to 0.0977 GiB of each process for loading.keep_encoded",
        "           beside the GPU, up to 0.0273 GiB of each process for loading.keep_features",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("loading.keep_encoded=-1",), "loading.keep_encoded: must be greater than or equal to 0"),
        (("loading.keep_features=64", "distributed=fsdp2"), "loading.keep_features: must be 0 with"),
        (
            (*MIXED, "mixture.degradation.loading.keep_encoded=9"),
            "whose size is loading.keep_encoded of the run",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(words: Sequence[str], message: str, taught_small: Taught) -> None:
    with pytest.raises(UserError, match=message):
        taught_small(*words)
