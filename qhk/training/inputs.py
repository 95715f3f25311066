"""Which examples a step has, and their prompts, ahead of time: pictures are read, degraded and encoded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from qhk.data.augment import draw_orientation, orient
from qhk.data.framing import frame
from qhk.data.image import load_image
from qhk.data.perturb import read_pictures
from qhk.data.prompts import build_messages, with_times
from qhk.data.sampling import step_indices
from qhk.data.seeds import stream_generator, stream_seed
from qhk.data.twin import make_twin
from qhk.policy.families import family_of
from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.settings.data import FramingSettings
from qhk.settings.root import Settings
from qhk.settings.twin import TwinSettings
from qhk.settings.views import task_views
from qhk.tasks import Task, build_task
from qhk.training.batch import Batch
from qhk.training.data import RunData
from qhk.training.kept import Kept
from qhk.types import Example


@dataclass(frozen=True, kw_only=True)
class Degrader:
    """How pictures are degraded.

    ``degrade`` takes (example, its pictures, epoch, factor of strengths) and returns degraded copies of the
    same sizes; ``each_epoch`` says whether they are others in every pass.
    """

    degrade: Callable[[Example, list[Image.Image], int, float], list[Image.Image]]
    each_epoch: bool


def plan(
    data: RunData,
    step: int,
    *,
    seed: int,
    prompts_per_step: int,
    twin_factor: float | None = 1.0,
    task: str | None = None,
) -> Batch:
    """Return what a step is to load, a pure function of (seed, step), with twins of that strength, or none.

    With ``task``, from an order over that task's sets alone.
    """
    keys = [key for key in data.train if task in (None, data.tasks[key])]
    draws = step_indices(
        seed,
        step,
        sizes={key: len(data.train[key]) for key in keys},
        weights={key: data.weights[key] for key in keys},
        prompts_per_step=prompts_per_step,
    )
    return Batch(
        indices=range(prompts_per_step),
        tasks=[data.tasks[draw.dataset] for draw in draws],
        examples=[data.train[draw.dataset][draw.index] for draw in draws],
        epochs=[draw.epoch for draw in draws],
        twin_factor=twin_factor,
    )


def prompt_sizes(planned: Batch, data: RunData, settings: Settings) -> list[int]:
    """Return about how long each prompt is, from the sizes of its pictures: pixels that the model sees."""
    model, framing = settings.model, settings.framing

    def seen(path: Path) -> int:
        shown = framing.shown_size(data.files[path].width, data.files[path].height)
        return min(max(math.prod(shown), model.min_pixels), model.max_pixels)

    return [sum(map(seen, example.images)) for example in planned.examples]


class ExampleReader:
    """Reads an example's pictures and encodes the prompt of a task that training and evaluation share.

    ``further`` are the chats in which training asks besides ``messages``; ``time_form`` is how the model is
    told when a frame of a video is shown, empty where it is not. ``kept`` holds what was encoded before, of
    all readers that share it.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        *,
        task: Task,
        messages: Sequence[Mapping[str, Any]],
        further: Sequence[Sequence[Mapping[str, Any]]] = (),
        answer_decimals: int,
        augmentation: str,
        framing: FramingSettings,
        seed: int,
        degrader: Degrader | None,
        kept: Kept[Any],
        time_form: str = "",
    ) -> None:
        self.encoder, self.task, self.messages, self.further = encoder, task, messages, further
        self.answer_decimals, self.degrader = answer_decimals, degrader
        self.augmentation, self.framing = augmentation, framing
        self.seed, self.kept, self.time_form = seed, kept, time_form

    @property
    def all_messages(self) -> Sequence[Sequence[Mapping[str, Any]]]:
        """The chats in which training asks, the one of evaluation first."""
        return [self.messages, *self.further]

    def training_messages(self, example: Example, *, epoch: int) -> Sequence[Mapping[str, Any]]:
        """Return the chat in which a pass over the example's set asks about it.

        Its first is drawn from the stream (seed, "wording", set, id), and each pass takes the next one: in as
        many passes as there are ways to ask, an image is asked about in each. A whole group is asked in one
        way, since its prompt is encoded once and its answers are compared.
        """
        if not self.further:
            return self.messages
        first = stream_seed(self.seed, "wording", example.dataset, example.id)
        return self.all_messages[(first + epoch) % len(self.all_messages)]

    def prompt(self, example: Example) -> EncodedPrompt:
        """Return the encoded prompt of an example. Raises ``UserError`` naming a picture it cannot read."""
        asked = self._timed(self.messages, example)

        def shown() -> list[Image.Image]:
            return [frame(image, self.framing) for image in read_pictures(example)]

        if example.perturbation is not None:
            return self.encoder.encode(asked, shown())
        return self._original(asked, example, None, shown)

    def _timed(self, messages: Sequence[Mapping[str, Any]], example: Example) -> Sequence[Mapping[str, Any]]:
        return with_times(messages, example.seconds, form=self.time_form)

    def training_prompt(
        self, example: Example, *, epoch: int, twin_factor: float | None
    ) -> tuple[EncodedPrompt, EncodedPrompt | None]:
        """Return the example's prompt and the same on its degraded twin; None where the loss looks at none.

        ``twin_factor`` None says so for one step. The twin differs in pixels alone, so only they are encoded:
        ids and positions are the original's.
        """
        place = (example.dataset, example.id, epoch)
        orientation = draw_orientation(self.augmentation, self.seed, *place)
        asked = self._timed(self.training_messages(example, epoch=epoch), example)

        @cache
        def pictures() -> list[Image.Image]:
            return [load_image(path) for path in example.images]

        def seen(images: Sequence[Image.Image]) -> list[Image.Image]:
            """What this pass shows, the same of a picture and its twin, and of all of a prompt."""
            turned = (orient(image, orientation) for image in images)
            return [
                frame(image, self.framing, stream_generator(self.seed, "framing", *place)) for image in turned
            ]

        # A frame that is drawn for this pass does not come again, and so is not kept.
        if self.framing.form == "whole":
            prompt = self._original(asked, example, orientation, lambda: seen(pictures()))
        else:
            prompt = self.encoder.encode(asked, seen(pictures()))
        degrader = self.degrader
        if degrader is None or twin_factor is None:
            return prompt, None

        def encode_twin() -> tuple[Tensor, Tensor]:
            degraded = degrader.degrade(example, pictures(), epoch, twin_factor)
            return self.encoder.encode_pixels(seen(degraded))

        # Nor does a twin whose strength is still on its way, or that changes from pass to pass.
        if not prompt.key or degrader.each_epoch or twin_factor != 1.0:
            return prompt, prompt.with_pixels(*encode_twin())
        key = (*prompt.key, "twin", example.dataset, example.id)
        return prompt, prompt.with_pixels(*self.kept.get(key, encode_twin, size=_pixel_bytes), key=key)

    def _original(
        self,
        messages: Sequence[Mapping[str, Any]],
        example: Example,
        orientation: Image.Transpose | None,
        images: Callable[[], list[Image.Image]],
    ) -> EncodedPrompt:
        """The prompt about the pictures as they are, in that orientation."""
        pictures = (example.images, orientation)
        prompt: EncodedPrompt = self.kept.get(
            (json.dumps(list(messages)), *pictures),
            lambda: replace(self.encoder.encode(messages, images()), key=pictures),
            size=lambda made: made.num_bytes,
        )
        return prompt


def _pixel_bytes(encoded: tuple[Tensor, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in encoded)


def build_readers(
    settings: Settings, policy: Policy, *, kept: Kept[Any] | None = None
) -> dict[str, ExampleReader]:
    """Return, by task, the one way this run turns an example into a prompt.

    Readers make degraded twins where perception looks at them; a supervised learner has none. What they
    encode stays in ``kept``; None keeps nothing.
    """
    with_twins = settings.looks_at_twins and settings.training.learner == "reinforcement"
    return {
        task: ExampleReader(
            policy.encoder,
            task=build_task(view.task),
            messages=build_messages(user=view.prompt.user, system=view.prompt.system),
            further=[build_messages(user=text, system=view.prompt.system) for text in view.prompt.wordings],
            answer_decimals=view.prompt.answer_decimals,
            augmentation=view.loading.augmentation,
            framing=view.framing,
            seed=view.seed,
            degrader=_degrader(view.twin, seed=view.seed) if with_twins else None,
            kept=Kept(0) if kept is None else kept,
            time_form=family_of(policy.model).time_form,
        )
        for task, view in task_views(settings).items()
    }


def _degrader(twin: TwinSettings, *, seed: int) -> Degrader:
    strengths: dict[str, float] = {str(kind): value for kind, value in twin.strengths.items()}

    def degrade(example: Example, images: list[Image.Image], epoch: int, factor: float) -> list[Image.Image]:
        # Each picture of a prompt is degraded on its own: its place is part of what the stream follows.
        places = [example] + [
            replace(example, id=f"{example.id} picture {place}") for place in range(1, len(images))
        ]
        return [
            make_twin(
                one,
                image,
                kinds=twin.kinds,
                strengths=strengths,
                seed=seed,
                epoch=epoch if twin.resample == "each_epoch" else None,
                factor=factor,
                fit=twin.form == "another",
            )
            for one, image in zip(places, images, strict=True)
        ]

    return Degrader(degrade=degrade, each_epoch=twin.form == "generated" and twin.resample == "each_epoch")


Encoded = tuple[EncodedPrompt, EncodedPrompt | None]
"""A prompt, and the same on its degraded twin where there is one."""


def load(planned: Batch, readers: Mapping[str, ExampleReader]) -> Batch:
    """Return the planned batch with its prompts read and encoded, and their twins where readers make them."""
    return _with_prompts(planned, [read() for read in _readings(planned, readers)])


def prefetch(
    readers: Mapping[str, ExampleReader], plan_step: Callable[[int], Batch], steps: range, *, workers: int
) -> Iterator[Batch]:
    """Yield each step's batch in turn, read in ``workers`` threads up to one step ahead (0: when asked for).

    What a step holds depends on ``plan_step(step)`` alone, so reading ahead changes no result.
    """
    if workers == 0:
        yield from (load(plan_step(step), readers) for step in steps)
        return
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read") as pool:

        def submit(step: int) -> tuple[Batch, list[Future[Encoded]]]:
            planned = plan_step(step)
            return planned, [pool.submit(read) for read in _readings(planned, readers)]

        ahead = submit(steps[0]) if steps else None
        for step in steps:
            assert ahead is not None
            planned, reading = ahead
            following = step + steps.step
            ahead = submit(following) if following in steps else None
            yield _with_prompts(planned, [future.result() for future in reading])


def _readings(planned: Batch, readers: Mapping[str, ExampleReader]) -> list[Callable[[], Encoded]]:
    return [
        partial(
            readers[task].training_prompt,
            example,
            epoch=epoch,
            twin_factor=planned.twin_factor,
        )
        for task, example, epoch in zip(planned.tasks, planned.examples, planned.epochs, strict=True)
    ]


def _with_prompts(planned: Batch, encoded: Sequence[Encoded]) -> Batch:
    degraded = [twin for _, twin in encoded if twin is not None]
    assert len(degraded) in (0, len(encoded)), "the tasks of a stage have one perception loss between them"
    return replace(planned, prompts=[prompt for prompt, _ in encoded], degraded=degraded)
