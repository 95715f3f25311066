"""Times in words before the frames of a video, where a family wants them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from qhk.data.prompts import build_messages, with_times
from qhk.policy.families import FAMILIES, OTHER
from qhk.policy.prompt import IMAGE_TOKEN
from tests.conftest import build_policy, picture

FORM = "<{:.1f} seconds>"
PLAIN = build_messages(user="Whole: {image} frames: {image}{image} Rate it.", system="Judge.")
SECONDS = (None, 0.46, 12.0)


def test_each_frame_has_its_time_before_it_and_a_packed_picture_has_none() -> None:
    kinds = [(part["type"], part.get("text")) for part in with_times(PLAIN, SECONDS, form=FORM)[1]["content"]]
    assert kinds == [
        ("text", "Whole: "),
        ("image", None),
        ("text", " frames: "),
        ("text", "<0.5 seconds>"),
        ("image", None),
        ("text", "<12.0 seconds>"),
        ("image", None),
        ("text", " Rate it."),
    ]


def test_without_times_or_words_for_them_the_question_stays_as_it_is() -> None:
    assert with_times(PLAIN, SECONDS, form="") is PLAIN
    assert with_times(PLAIN, (), form=FORM) is with_times(PLAIN, (None,) * 3, form=FORM) is PLAIN


def test_families_that_read_times_are_told_them() -> None:
    assert {name for name, family in FAMILIES.items() if family.time_form} == {"qwen3_vl", "qwen3_5"}
    assert not OTHER.time_form


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_the_words_are_those_of_the_stock_processor(family: str) -> None:
    """Its own method makes the text of a video of two steps in time, four patches each after merging."""
    policy = build_policy(family=family)
    indices, fps = [0, 1, 36, 37], 3.0
    stock: Any = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        video_token=IMAGE_TOKEN,
        _calculate_timestamps=lambda *given: Qwen3VLProcessor._calculate_timestamps(stock, *given),
    )
    metadata = SimpleNamespace(fps=fps, frames_indices=list(indices))
    video = {"video_grid_thw": np.array([[2, 4, 4]]), "video_metadata": [metadata]}
    expected = Qwen3VLProcessor.replace_video_token(stock, video, 0)
    assert expected.startswith("<0.2 seconds><|vision_start|>") and "<12.2 seconds>" in expected
    seconds = [(indices[0] + indices[1]) / 2 / fps, (indices[2] + indices[3]) / 2 / fps]
    messages = build_messages(user="{image}{image}", system=None)
    side = 4 * int(policy.image_processor.patch_size)
    prompt = policy.encoder.encode(
        with_times(messages, seconds, form=FAMILIES[family].time_form), [picture(side, side)] * 2
    )
    assert expected in policy.tokenizer.decode(prompt.input_ids)
