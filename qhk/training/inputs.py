"""Which examples a step has, and their prompts, ahead of time: pictures are read, degraded and encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from qhk.data.augment import orient
from qhk.data.image import load_image
from qhk.data.perturb import read_pictures
from qhk.data.prompts import build_messages, with_times
from qhk.data.sampling import step_indices
from qhk.data.seeds import stream_seed
from qhk.data.twin import make_twin
from qhk.policy.families import family_of
from qhk.policy.load import Policy
from qhk.policy.prompt import EncodedPrompt, PromptEncoder
from qhk.settings.inputs import TwinSettings
from qhk.settings.root import Settings
from qhk.settings.views import task_views
from qhk.tasks import Task, build_task
from qhk.training.batch import Batch
from qhk.training.data import RunData
from qhk.types import Example

Degrade = Callable[[Example, list[Image.Image], int, float], list[Image.Image]]
"""(example, its pictures, epoch, factor of strengths) -> their degraded copies, of the same sizes."""


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


class ExampleReader:
    """Reads an example's pictures and encodes the prompt of a task that training and evaluation share.

    ``further`` are the chats in which training asks besides ``messages``; ``time_form`` is how the model is
    told when a frame of a video is shown, empty where it is not.
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
        seed: int,
        degrade: Degrade | None,
        time_form: str = "",
    ) -> None:
        self.encoder, self.task, self.messages, self.further = encoder, task, messages, further
        self.answer_decimals, self.degrade = answer_decimals, degrade
        self.augmentation, self.seed, self.time_form = augmentation, seed, time_form

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
        return self.encoder.encode(self._timed(self.messages, example), read_pictures(example))

    def _timed(self, messages: Sequence[Mapping[str, Any]], example: Example) -> Sequence[Mapping[str, Any]]:
        return with_times(messages, example.seconds, form=self.time_form)

    def training_images(self, example: Example, *, epoch: int) -> list[Image.Image]:
        """Return the example's pictures, all in the orientation of this pass over its set."""
        place = (self.seed, example.dataset, example.id, epoch)
        return [orient(load_image(path), self.augmentation, *place) for path in example.images]

    def training_prompt(
        self, example: Example, *, epoch: int, twin_factor: float | None
    ) -> tuple[EncodedPrompt, EncodedPrompt | None]:
        """Return the example's prompt and the same on its degraded twin; None where the loss looks at none.

        ``twin_factor`` None says so for one step. The twin differs in pixels alone, so only they are encoded:
        ids and positions are the original's.
        """
        images = self.training_images(example, epoch=epoch)
        asked = self._timed(self.training_messages(example, epoch=epoch), example)
        prompt = self.encoder.encode(asked, images)
        if self.degrade is None or twin_factor is None:
            return prompt, None
        degraded = self.degrade(example, images, epoch, twin_factor)
        return prompt, prompt.with_pixels(*self.encoder.encode_pixels(degraded))


def build_readers(settings: Settings, policy: Policy) -> dict[str, ExampleReader]:
    """Return, by task, the one way this run turns an example into a prompt.

    Readers make degraded twins where perception looks at them; a supervised learner has none.
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
            seed=view.seed,
            degrade=_degrader(view.twin, seed=view.seed) if with_twins else None,
            time_form=family_of(policy.model).time_form,
        )
        for task, view in task_views(settings).items()
    }


def _degrader(twin: TwinSettings, *, seed: int) -> Degrade:
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

    return degrade


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
