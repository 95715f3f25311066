"""From examples to encoded prompts, ahead of time: which examples a step sees, and reading them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from PIL import Image

from qhk.data.augment import orient
from qhk.data.image import load_image
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.tasks import Task
from qhk.types import Example

MakeTwin = Callable[[Example, list[Image.Image], int, float], list[Image.Image]]
"""(example, its pictures, epoch, factor of strengths) -> their degraded copies, of the same sizes."""


@dataclass(frozen=True, kw_only=True)
class PlannedPrompt:
    """Which example stands at a global index of a step, for which task, and in which pass over its set.

    ``twin_factor`` in [0, 1] is how far the degraded twins' strengths have risen at that step.
    """

    index: int
    task: str
    example: Example
    epoch: int
    twin_factor: float


@dataclass(frozen=True, kw_only=True)
class StepPrompt:
    """One prompt of a step, with its index among all prompts of the step and its task."""

    index: int
    task: str
    example: Example
    prompt: EncodedPrompt
    twin: EncodedPrompt | None


class ExampleReader:
    """Reads an example's pictures and encodes the one prompt of a task that training and evaluation share."""

    def __init__(
        self,
        encoder: PromptEncoder,
        *,
        task: Task,
        messages: Sequence[Mapping[str, Any]],
        answer_decimals: int,
        augmentation: str,
        seed: int,
        make_twin: MakeTwin | None,
    ) -> None:
        self.encoder, self.task, self.messages = encoder, task, messages
        self.answer_decimals, self.make_twin = answer_decimals, make_twin
        self.augmentation, self.seed = augmentation, seed

    def prompt(self, example: Example) -> EncodedPrompt:
        """The encoded prompt of an example. Raises ValueError naming a picture that cannot be read."""
        return self.encoder.encode(self.messages, [load_image(path) for path in example.images])

    def training_images(self, example: Example, *, epoch: int) -> list[Image.Image]:
        """The example's pictures, all in the orientation of this pass over its set."""
        place = (self.seed, example.dataset, example.id, epoch)
        return [orient(load_image(path), self.augmentation, *place) for path in example.images]

    def lesson_prompt(self, example: Example, *, epoch: int) -> EncodedPrompt:
        """The encoded prompt of an example that is learnt from, oriented as ``training_images`` says."""
        return self.encoder.encode(self.messages, self.training_images(example, epoch=epoch))

    def step_prompt(self, planned: PlannedPrompt) -> StepPrompt:
        """The example's prompt and, where the loss looks at one, the same prompt on its degraded twin."""
        example = planned.example
        images = self.training_images(example, epoch=planned.epoch)
        prompt = self.encoder.encode(self.messages, images)
        twin = None
        if self.make_twin is not None:
            degraded = self.make_twin(example, images, planned.epoch, planned.twin_factor)
            twin = prompt.with_pixels(self.encoder.encode(self.messages, degraded))
        return StepPrompt(index=planned.index, task=planned.task, example=example, prompt=prompt, twin=twin)


def prefetch(
    readers: Mapping[str, ExampleReader],
    plan: Callable[[int], Sequence[PlannedPrompt]],
    steps: range,
    *,
    workers: int,
) -> Iterator[list[StepPrompt]]:
    """The prompts of each step in turn, read in ``workers`` threads up to one step ahead (0: when asked for).

    What a step holds depends on ``plan(step)`` alone, so reading ahead changes no result.
    """

    def read(planned: PlannedPrompt) -> StepPrompt:
        return readers[planned.task].step_prompt(planned)

    if workers == 0:
        for step in steps:
            yield [read(planned) for planned in plan(step)]
        return
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read") as pool:
        ahead: list[Future[StepPrompt]] = []
        for step in steps:
            current = ahead or [pool.submit(read, planned) for planned in plan(step)]
            following = step + steps.step
            ahead = [pool.submit(read, p) for p in plan(following)] if following in steps else []
            yield [future.result() for future in current]
