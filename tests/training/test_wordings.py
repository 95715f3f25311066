"""Several ways to ask: which one a pass takes, where stages change it, what evaluation asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from qhk.cli.job import prepare
from qhk.config.catalogue import config_root, read_catalogue
from qhk.settings.data import WHOLE
from qhk.settings.task import PromptSettings
from qhk.settings.views import stage_views
from qhk.training.begin import _ways_to_ask
from qhk.training.inputs import ExampleReader
from qhk.training.kept import Kept
from qhk.training.stages import RunStage
from qhk.types import Example

WAYS = [[{"way": number}] for number in range(3)]
STAGED = ("experiment=preresq_r1_iqa", "scale=miniature")


def example(name: str) -> Example:
    return Example(id=name, dataset="set", image="x.png", mos=3.0, mos_native=3.0, higher_is_better=True)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Asked:
    """In the place of an encoded prompt."""

    messages: Any
    key: tuple[Any, ...] = ()
    num_bytes: int = 0


def reader(*further: Any, seed: int = 0) -> ExampleReader:
    encoder: Any = SimpleNamespace(encode=lambda messages, images: Asked(messages))
    return ExampleReader(
        encoder,
        task=None,  # type: ignore[arg-type]  # not looked at
        messages=WAYS[0],
        further=further,
        answer_decimals=2,
        augmentation="none",
        framing=WHOLE,
        seed=seed,
        degrader=None,
        kept=Kept(1),
    )


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qhk.training.inputs.load_image", lambda path: None)
    monkeypatch.setattr("qhk.training.inputs.read_pictures", lambda one: [])


def asked(read: ExampleReader, name: str, epoch: int) -> int:
    prompt: Any = read.training_prompt(example(name), epoch=epoch, twin_factor=None)[0]
    return prompt.messages[0]["way"]


def test_as_many_passes_ask_about_an_image_in_every_way() -> None:
    read = reader(*WAYS[1:])
    firsts = Counter[int]()
    for number in range(300):
        ways = [asked(read, str(number), epoch) for epoch in range(6)]
        assert sorted(ways[:3]) == [0, 1, 2] and ways[:3] == ways[3:]
        firsts[ways[0]] += 1
    assert all(70 < count < 130 for count in firsts.values()), "a step has all ways among its images"
    again = [asked(reader(*WAYS[1:]), str(number), 0) for number in range(300)]
    assert again == [asked(read, str(number), 0) for number in range(300)]
    assert again != [asked(reader(*WAYS[1:], seed=1), str(number), 0) for number in range(300)]


def test_evaluation_asks_in_the_named_way_and_so_does_training_without_others() -> None:
    for number in range(20):
        prompt: Any = reader(*WAYS[1:]).prompt(example(str(number)))
        assert prompt.messages == WAYS[0]
        assert asked(reader(), str(number), number) == 0


def test_exploration_asks_in_several_ways_and_stability_in_one() -> None:
    catalogue = read_catalogue(config_root())
    settings = prepare("train", STAGED, catalogue).settings
    exploration, stability = (view.settings for view in stage_views(settings))
    assert exploration.prompt == settings.prompt and len(exploration.prompt.wordings) == 2
    assert stability.prompt == settings.prompt.model_copy(update={"wordings": []})
    assert _ways_to_ask("main", stability) < _ways_to_ask("main", exploration), "it is taught once"
    rest: Any = {"name": "", "reference": "", "data": None, "first": 0, "horizon": None, "timeline": None}
    stages = [RunStage(settings=one, **rest) for one in (exploration, stability)]
    assert stages[0].asks_like(stages[1]), "nothing is evaluated twice"
    other = stability.model_copy(
        update={"prompt": stability.prompt.model_copy(update={"user": "How good is it?"})}
    )
    assert not stages[0].asks_like(replace(stages[1], settings=other))
    full = prepare("train", STAGED[:1], catalogue).settings
    assert len(full.prompt.wordings) == 4 and not full.stages["stability"].prompt.wordings  # type: ignore[union-attr]
    video = prepare("train", ["experiment=preresq_r1_vqa", "model.path=x"], catalogue).settings
    assert all(view.settings.prompt == video.prompt for view in stage_views(video))


@pytest.mark.parametrize("wordings", [["a"], ["b", "b"]])
def test_a_wording_that_is_there_twice_is_refused(wordings: list[str]) -> None:
    with pytest.raises(ValueError, match="wordings: number . is there already, or is user; leave it out"):
        PromptSettings(task="score", system=None, user="a", answer_decimals=1, wordings=wordings)
