"""Images per second of the read-outs beside a plain loop of transformers, one image at a time.

Both answer the same pictures with the same cold-started tiny policy, in turns within one process, so that a
busy machine slows both. The plain loop is ``model.generate`` per image: greedy, or eight sampled sequences of
one call. Each turn takes all images; ratios are of neighbouring turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from qhk.cli import main as command_line
from qhk.data.prompts import build_messages
from qhk.data.seeds import stream_generator
from qhk.evaluation.readouts import ReadoutSampler
from qhk.policy.attention import GROUP_ATTENTION
from qhk.policy.load import Policy, load_policy
from qhk.policy.prompt import PromptEncoder
from qhk.settings.base import Readout
from qhk.settings.parse import read_settings
from qhk.settings.root import Settings
from qhk.tasks import build_task

MEAN = {"mean_of_8": (8, 1.0, "written")}
GREEDY = {"greedy": (1, 0.0, "written")}
WAYS = {
    "greedy": (GREEDY, "greedy"),
    "mean of 8": (MEAN, "sampled"),
    "all three": ({**MEAN, **GREEDY, "expected": (1, 0.0, "expected")}, "both"),
}
"""What is measured: our read-outs, and the plain loop that samples the same; it expects no scores."""


def trained_policy(folder: Path) -> tuple[Policy, Settings]:
    """Return the default policy after its cold start, and its settings."""
    words = ["train", "scale=miniature", "training.duration={steps: 1, epochs: null}", "benchmark=[]"]
    words += ["tracking=none", "loading.validation_fraction=0", "training.threads=1", "name=bench"]
    words += [f"paths.outputs={folder / 'outputs'}", f"paths.cache={folder / 'cache'}"]
    if command_line.main(words):
        raise SystemExit("the policy could not be trained")
    directory = folder / "outputs" / "default" / "bench" / "seed0"
    settings = read_settings(directory / "config.yaml")
    policy = load_policy(
        str(directory / "checkpoints" / "last"),
        dtype="float32",
        min_pixels=settings.model.min_pixels,
        max_pixels=settings.model.max_pixels,
        device="cpu",
    )
    return policy, settings


def plain_loop(policy: Policy, settings: Settings, images: Sequence[Image.Image], *, kind: str) -> None:
    """Answer one image after the other by the stock ``generate``, pictures and prompts encoded on the way."""
    messages = build_messages(user=settings.prompt.user, system=settings.prompt.system)
    model = policy.model
    model.set_attn_implementation({"text_config": "sdpa", "vision_config": "sdpa"})
    for image in images:
        # Ours remembers how a question is laid out; a plain loop tokenises it for each image.
        encoder = PromptEncoder(tokenizer=policy.tokenizer, image_processor=policy.image_processor)
        prompt = encoder.encode(messages, [image])
        inputs = {
            "input_ids": prompt.input_ids[None],
            "attention_mask": torch.ones_like(prompt.input_ids)[None],
            "mm_token_type_ids": prompt.is_image.long()[None],
            "pixel_values": prompt.pixel_values,
            "image_grid_thw": prompt.image_grid_thw,
            "max_new_tokens": settings.rollout.max_new_tokens,
            "eos_token_id": list(policy.end_tokens),
            "pad_token_id": policy.end_tokens[-1],
        }
        with torch.no_grad():
            answers = []
            if kind in ("greedy", "both"):
                answers.append(model.generate(**inputs, do_sample=False))
            if kind in ("sampled", "both"):
                answers.append(model.generate(**inputs, do_sample=True, num_return_sequences=8))
        for answer in answers:
            policy.tokenizer.batch_decode(answer[:, prompt.num_tokens :], skip_special_tokens=True)
    model.set_attn_implementation({"text_config": GROUP_ATTENTION, "vision_config": "sdpa"})


def our_pass(
    policy: Policy,
    settings: Settings,
    images: Sequence[Image.Image],
    *,
    readouts: dict[str, tuple[int, float, str]],
) -> None:
    """Answer the images by the read-outs, in batches as an evaluation has them."""
    messages = build_messages(user=settings.prompt.user, system=settings.prompt.system)
    length = settings.rollout.max_new_tokens
    sampler = ReadoutSampler(
        policy,
        {
            name: Readout.model_validate(
                {"num_samples": number, "temperature": temperature, "max_new_tokens": length, "score": score}
            )
            for name, (number, temperature, score) in readouts.items()
        },
        task=build_task(settings.task),
        decimals=settings.prompt.answer_decimals,
        decode_batch=settings.rollout.decode_batch,
    )
    for start in range(0, len(images), settings.evaluation.batch_images):
        batch = images[start : start + settings.evaluation.batch_images]
        sampler(
            [policy.encoder.encode(messages, [image]) for image in batch],
            [partial(stream_generator, 0, "bench", start + place) for place in range(len(batch))],
        )


def seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Prints images per second of both, and the median ratio with its least and greatest value."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(arguments.images)
    ]
    with TemporaryDirectory() as folder:
        policy, settings = trained_policy(Path(folder))
        print(f"{arguments.images} images, {arguments.turns} turns, one thread")
        print(f"{'':10} | {'generate':>12} | {'ours':>12} | ratio (least to greatest)")
        for way, (readouts, kind) in WAYS.items():
            ours = partial(our_pass, policy, settings, images, readouts=readouts)
            plain = partial(plain_loop, policy, settings, images, kind=kind)
            ours()
            pairs = [(seconds(plain), seconds(ours)) for _ in range(arguments.turns)]
            ratios = [slow / fast for slow, fast in pairs]
            slow, fast = (len(images) / statistics.median(each) for each in zip(*pairs, strict=True))
            print(
                f"{way:10} | {slow:7.1f} im/s | {fast:7.1f} im/s |"
                f" {statistics.median(ratios):5.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
