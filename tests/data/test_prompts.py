from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from qhk.data.prompts import build_messages, check_pictures, num_pictures
from qhk.types import Example
from tests.data.conftest import REPOSITORY


def example(**labels: str | float) -> Example:
    return Example(
        id="a", dataset="s", image=Path("a"), mos=3.0, mos_native=3.0, higher_is_better=True, labels=labels
    )


def test_messages() -> None:
    assert build_messages(user="How good?", system=None) == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How good?"}]}
    ]
    assert build_messages(user="q", system="s")[0] == {
        "role": "system",
        "content": [{"type": "text", "text": "s"}],
    }


def test_markers_place_the_pictures() -> None:
    (turn,) = build_messages(user="Reference: {image} A: {image}{image}\nWhich?", system=None)
    assert turn["content"] == [
        {"type": "text", "text": "Reference: "},
        {"type": "image"},
        {"type": "text", "text": " A: "},
        {"type": "image"},
        {"type": "image"},
        {"type": "text", "text": "\nWhich?"},
    ]
    (turn,) = build_messages(user='{image} Write {"rating": 3.50}', system=None)
    assert turn["content"] == [{"type": "image"}, {"type": "text", "text": ' Write {"rating": 3.50}'}]
    with pytest.raises(ValueError, match=r"prompt\.system holds \{image\}"):
        build_messages(user="q", system="see {image}")


@pytest.mark.parametrize(
    ("user", "pictures"), [("Rate it.", 1), ("{image} Rate it.", 1), ("{image} or {image}", 2)]
)
def test_prompt_and_pictures_must_agree(user: str, pictures: int) -> None:
    assert num_pictures(user) == pictures
    check_pictures(user, [replace(example(), more_images=(Path("b"),) * (pictures - 1))])
    with pytest.raises(
        ValueError, match=rf"prompt\.user shows {pictures} pictures .* a of s has {pictures + 1}"
    ):
        check_pictures(user, [replace(example(), more_images=(Path("b"),) * pictures)])


@pytest.mark.parametrize("text", ["look: <image>", "<|image_pad|>"])
def test_image_tokens_in_the_wording_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"prompt\.user holds"):
        build_messages(user=text, system=None)


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "conf" / "prompt").glob("*.yaml")), ids=lambda p: p.stem
)
def test_wordings_fit_their_tasks(path: Path) -> None:
    own = yaml.safe_load(path.read_text())
    (base,) = [name for name in own.get("defaults", ["_self_"]) if name != "_self_"] or [path.stem]
    prompt = yaml.safe_load(path.with_stem(base).read_text()) | own
    without_reference = "no_reference" in path.stem
    shown = {"comparison": 2 if without_reference else 3, "video": 4}.get(prompt["task"], 1)
    for text in [prompt["user"], *prompt.get("wordings", [])]:
        build_messages(user=text, system=prompt["system"])
        assert num_pictures(text) == shown
        assert "<answer>" in text
        assert ("<think>" in text) == ("answer_only" not in path.stem)
        assert ("Similar" in text) == (prompt["task"] == "comparison" and not without_reference)
