"""Where a run's policy comes from: random weights, a published model, a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from qhk.data.distortions import descriptions
from qhk.data.framing import frame
from qhk.data.image import load_image
from qhk.data.prompts import IMAGE_MARKER
from qhk.data.seeds import stream_generator, stream_seed
from qhk.errors import UserError
from qhk.policy.adapter import rest_dropout
from qhk.policy.adapter_base import start_problems
from qhk.policy.families import family_of
from qhk.policy.load import Policy, load_policy, prepare_model
from qhk.policy.shape import framing_problems
from qhk.policy.tiny import build_tiny, tiny_config, tiny_image_processor, whiten_patch_embedding
from qhk.policy.tokenizer import build_tokenizer
from qhk.settings.model import ModelSettings
from qhk.settings.root import Settings
from qhk.settings.views import task_views
from qhk.tasks import build_task
from qhk.types import Example

NUM_MERGED_TOKENS = 160
"""BPE merges of the tiny tokenizer; its corpus is the prompt and the cold start's words."""


def start_policy(
    settings: Settings, examples: Sequence[Example], *, stages: Sequence[Settings], device: str
) -> Policy:
    """Return the policy a run begins with: built from random weights (tiny), or loaded (pretrained).

    ``examples`` are training examples; a tiny model's patch embedding is whitened on their pictures, and its
    tokenizer knows the prompts of all ``stages``.
    """
    model = settings.model
    for problem in [*start_problems(settings), *framing_problems(settings)]:
        raise UserError(problem)
    if model.form == "tiny":
        policy = _tiny_policy(settings, examples, stages=stages, device=device)
    else:
        assert model.path is not None
        is_quantised = settings.adapter is not None and settings.adapter.form == "qlora"
        policy = open_policy(model.path, model, device=device, bits=4 if is_quantised else None)
    return _as_trained(policy, model)


def open_policy(
    path: str, model: ModelSettings, *, device: str, intact: bool = False, bits: int | None = None
) -> Policy:
    """Return the policy saved at ``path``, with this run's precision and pixels; see ``load_policy``."""
    return load_policy(
        path,
        dtype=model.dtype,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        device=device,
        intact=intact,
        bits=bits,
    )


def reopen_policy(path: str, model: ModelSettings, *, device: str) -> Policy:
    """Return a checkpointed policy whose files have been checked, ready to be trained on."""
    return _as_trained(open_policy(path, model, device=device, intact=True), model)


def _as_trained(policy: Policy, model: ModelSettings) -> Policy:
    if model.freeze_vision:
        for weight in family_of(policy.model).vision_weights(policy.model):
            weight.requires_grad_(False)
    if model.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        # transformers recomputes activations in training mode only; the model has no dropout of its own.
        policy.model.train()
        rest_dropout(policy.model)
    return policy


def _tiny_policy(
    settings: Settings, examples: Sequence[Example], *, stages: Sequence[Settings], device: str
) -> Policy:
    tiny, model = settings.model.tiny, settings.model
    assert tiny is not None
    texts = ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    for view in (view for stage in stages for view in task_views(stage).values()):
        texts += [
            *(part for text in view.prompt.texts for part in text.split(IMAGE_MARKER)),
            *([view.prompt.system] if view.prompt.system else []),
        ]
        texts += build_task(view.task).vocabulary(descriptions())
    tokenizer = build_tokenizer(texts, num_merged_tokens=NUM_MERGED_TOKENS)
    sizes = tiny.model_dump(exclude={"whiten", "whitening_epsilon", "whitening_images", "image_mean"})
    config = tiny_config(tokenizer, **sizes)
    network = build_tiny(config, seed=stream_seed(settings.seed, "weights"))
    processor = tiny_image_processor(
        patch_size=tiny.patch_size,
        merge_size=tiny.merge_size,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        image_mean=tiny.image_mean,
    )
    if tiny.whiten:
        order = stream_generator(settings.seed, "whitening").permutation(len(examples))[
            : tiny.whitening_images
        ]
        images = [frame(load_image(examples[int(index)].image), settings.framing) for index in order]
        whiten_patch_embedding(network, processor, images, epsilon=tiny.whitening_epsilon)
    dtype = {"float32": "float", "float64": "double", "bfloat16": "bfloat16"}[model.dtype]
    network = getattr(network, dtype)()
    return Policy(
        model=prepare_model(network.to(device)).eval(), tokenizer=tokenizer, image_processor=processor
    )
