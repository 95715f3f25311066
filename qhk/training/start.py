"""Where a run's policy comes from, and how it reads examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from qhk.data.image import load_image
from qhk.data.prompts import IMAGE_MARKER, build_messages
from qhk.data.seeds import stream_generator, stream_seed
from qhk.data.targets import taught_texts
from qhk.data.twin import make_twin
from qhk.policy.load import Policy, load_policy, prepare_model
from qhk.policy.tiny import build_tiny, tiny_config, tiny_image_processor, whiten_patch_embedding
from qhk.policy.tokenizer import build_tokenizer
from qhk.rewards.answer import find_rule
from qhk.rollout.group import Parser
from qhk.settings import ModelSettings, Settings, task_views
from qhk.training.inputs import ExampleReader, MakeTwin
from qhk.types import Example

NUM_MERGED_TOKENS = 160
"""BPE merges of the tiny tokenizer; its corpus is the prompt and the cold start's words."""


def start_policy(
    settings: Settings, examples: Sequence[Example], *, stages: Sequence[Settings], device: str
) -> Policy:
    """The policy a run begins with: built from random weights (tiny), or loaded (pretrained).

    ``examples`` are training examples; a tiny model's patch embedding is whitened on their pictures, and its
    tokenizer knows the prompts of all ``stages``.
    """
    model = settings.model
    if model.form == "tiny":
        policy = _tiny_policy(settings, examples, stages=stages, device=device)
    else:
        assert model.path is not None
        policy = open_policy(model.path, model, device=device)
    return _as_trained(policy, model)


def open_policy(path: str, model: ModelSettings, *, device: str) -> Policy:
    """The policy saved at ``path``, with this run's precision and pixel limits."""
    return load_policy(
        path, dtype=model.dtype, min_pixels=model.min_pixels, max_pixels=model.max_pixels, device=device
    )


def reopen_policy(path: str, model: ModelSettings, *, device: str) -> Policy:
    """A checkpointed policy, ready to be trained on."""
    return _as_trained(open_policy(path, model, device=device), model)


def _as_trained(policy: Policy, model: ModelSettings) -> Policy:
    if model.freeze_vision:
        policy.model.model.visual.requires_grad_(False)
    if model.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        # transformers recomputes activations in training mode only; the model has no dropout.
        policy.model.train()
    return policy


def _tiny_policy(
    settings: Settings, examples: Sequence[Example], *, stages: Sequence[Settings], device: str
) -> Policy:
    tiny, model = settings.model.tiny, settings.model
    assert tiny is not None
    texts = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    for view in (view for stage in stages for view in task_views(stage).values()):
        texts += [
            *view.prompt.user.split(IMAGE_MARKER),
            *([view.prompt.system] if view.prompt.system else []),
        ]
        texts += taught_texts(form=view.task.form, rule=view.task.answer_rule)
    tokenizer = build_tokenizer(texts, num_merged_tokens=NUM_MERGED_TOKENS)
    sizes = tiny.model_dump(exclude={"whiten", "whitening_epsilon", "whitening_images"})
    config = tiny_config(tokenizer, **sizes)
    network = build_tiny(config, seed=stream_seed(settings.seed, "weights"))
    processor = tiny_image_processor(
        patch_size=tiny.patch_size,
        merge_size=tiny.merge_size,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
    )
    if tiny.whiten:
        order = stream_generator(settings.seed, "whitening").permutation(len(examples))[
            : tiny.whitening_images
        ]
        images = [load_image(examples[int(index)].image) for index in order]
        whiten_patch_embedding(network, processor, images, epsilon=tiny.whitening_epsilon)
    dtype = {"float32": "float", "float64": "double", "bfloat16": "bfloat16"}[model.dtype]
    network = getattr(network, dtype)()
    return Policy(
        model=prepare_model(network.to(device)).eval(), tokenizer=tokenizer, image_processor=processor
    )


def build_readers(settings: Settings, policy: Policy) -> dict[str, ExampleReader]:
    """By task, the one way this run turns an example into a prompt."""
    return {task: _build_reader(view, policy) for task, view in task_views(settings).items()}


def _build_reader(settings: Settings, policy: Policy) -> ExampleReader:
    """Makes twins where the perception loss is on."""
    return ExampleReader(
        policy.encoder,
        form=settings.task.form,
        rule=settings.task.answer_rule,
        messages=build_messages(user=settings.prompt.user, system=settings.prompt.system),
        answer_decimals=settings.prompt.answer_decimals,
        augmentation=settings.loading.augmentation,
        seed=settings.seed,
        make_twin=_twin_maker(settings) if settings.perception.form != "none" else None,
    )


def _twin_maker(settings: Settings) -> MakeTwin:
    twin = settings.twin
    strengths: dict[str, float] = {str(kind): value for kind, value in twin.strengths.items()}

    def degraded(example: Example, image: Image.Image, epoch: int, factor: float) -> Image.Image:
        return make_twin(
            example,
            image,
            kinds=twin.kinds,
            strengths=strengths,
            seed=settings.seed,
            epoch=epoch if twin.resample == "each_epoch" else None,
            factor=factor,
        )

    def make(example: Example, images: list[Image.Image], epoch: int, factor: float) -> list[Image.Image]:
        # Each picture of a prompt is degraded on its own: its place is part of what the stream follows.
        places = [example] + [
            replace(example, id=f"{example.id} picture {place}") for place in range(1, len(images))
        ]
        return [degraded(one, image, epoch, factor) for one, image in zip(places, images, strict=True)]

    return make


def build_parsers(settings: Settings) -> dict[str, Parser]:
    """By task, its one parser: reward, uncertainty and evaluation all read with it."""
    return {
        task: find_rule(view.task.form, view.task.answer_rule) for task, view in task_views(settings).items()
    }
