"""Packed group forward beside the repeated one: time and peak memory of a policy forward and backward.

Run it with ``make bench`` or ``python -m tests.bench.packed_step``. Each cell runs in a process of its own,
both ways in turn, on the same random model, image and completions, in float32 on one thread:

repeated  the published releases' scheme: prompt and image once per completion, logits of the whole
          vocabulary and their log-softmax at every position, the prompt's included
packed    ours: prompt and image once per group, the head at completion positions only

Printed per cell: seconds (best of the repeats), peak memory above the loaded model, their ratios, and the
largest difference of the log-probabilities, which is what makes the comparison one of equals. The model is a
random one of about five million parameters: ratios on a real 7B model differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from qhk.policy.head import read_head
from qhk.policy.load import Policy, prepare_model
from qhk.policy.packed import encode_images, pack_groups, packed_hidden
from qhk.policy.prompt import EncodedPrompt
from qhk.policy.tiny import build_tiny, tiny_config, tiny_image_processor
from qhk.policy.tokenizer import build_tokenizer

SIDES = {300: 448, 1200: 960}
"""Prompt tokens, about, and the side in pixels of the picture that gives them."""

COMPLETION_TOKENS, VOCABULARY = 64, 2048
MESSAGES = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rate the quality. " * 3}]}
]


def bench_policy() -> Policy:
    """A random model: hidden 256, four text layers, grouped-query heads, vocabulary padded to 2048."""
    tokenizer = build_tokenizer(["Rate the quality."], num_merged_tokens=10)
    config = tiny_config(
        tokenizer,
        patch_size=14,
        merge_size=2,
        vision_depth=4,
        vision_hidden=128,
        vision_mlp=256,
        vision_heads=4,
        depth=4,
        hidden=256,
        mlp=768,
        heads=8,
        kv_heads=2,
        initializer_range=0.02,
    )
    config.text_config.vocab_size = VOCABULARY
    processor = tiny_image_processor(patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=2000 * 2000)
    return Policy(
        model=prepare_model(build_tiny(config, seed=0)).eval(), tokenizer=tokenizer, image_processor=processor
    )


def packed(policy: Policy, prompt: EncodedPrompt, completions: list[Tensor]) -> Tensor:
    """(tokens,) log-probabilities by one packed row."""
    row = pack_groups([prompt], [completions], device=policy.model.device)
    hidden = packed_hidden(policy.model, row, encode_images(policy.model, [prompt]))
    return read_head(
        policy.model.lm_head, hidden, row.targets, temperature=1.0, with_entropy=False, chunk=2048
    ).logprobs


def repeated(policy: Policy, prompt: EncodedPrompt, completions: list[Tensor]) -> Tensor:
    """(tokens,) log-probabilities by one row per completion, as the releases compute them."""
    count = len(completions)
    rows = torch.stack([torch.cat([prompt.input_ids, completion]) for completion in completions])
    types = torch.zeros_like(rows)
    types[:, : prompt.num_tokens] = prompt.is_image.long()
    logits = policy.model(
        input_ids=rows,
        attention_mask=torch.ones_like(rows),
        mm_token_type_ids=types,
        pixel_values=prompt.pixel_values.repeat(count, 1),
        image_grid_thw=prompt.image_grid_thw.repeat(count, 1),
        use_cache=False,
    ).logits
    logprobs = logits[:, :-1].log_softmax(-1).gather(2, rows[:, 1:, None])[..., 0]
    return logprobs[:, prompt.num_tokens - 1 :].flatten()


WAYS: dict[str, Callable[[Policy, EncodedPrompt, list[Tensor]], Tensor]] = {
    "repeated": repeated,
    "packed": packed,
}


def measure(way: str, prompt_tokens: int, group_size: int, repeats: int) -> dict[str, Any]:
    """Seconds, peak MiB above the model, and the log-probabilities, of one way in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = bench_policy()
    side = SIDES[prompt_tokens]
    picture = Image.linear_gradient("L").resize((side, side)).convert("RGB")
    prompt = policy.encoder.encode(MESSAGES, [picture])
    completions = [torch.randint(0, 256, (COMPLETION_TOKENS,)) for _ in range(group_size)]
    if way == "repeated":
        policy.model.set_attn_implementation("sdpa")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        policy.model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        logprobs = WAYS[way](policy, prompt, completions)
        logprobs.mean().backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": min(seconds),
        "mib": (peak - before) / 1024,
        "prompt": prompt.num_tokens,
        "logprobs": logprobs.detach().tolist(),
    }


def main() -> None:
    """Prints the table; with ``--cell`` measures one cell for the parent process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", nargs=3, metavar=("WAY", "PROMPT", "GROUP"))
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.cell:
        way, prompt, group = arguments.cell
        print(json.dumps(measure(way, int(prompt), int(group), arguments.repeats)))
        return
    print(
        f"{'P':>5} {'C':>4} {'G':>3} | {'repeated':>16} | {'packed':>16} | time x  memory x  max |difference|"
    )
    for prompt in SIDES:
        for group in (8, 16):
            cells = {way: _child(way, prompt, group, arguments.repeats) for way in WAYS}
            plain, ours = cells["repeated"], cells["packed"]
            gap = max(abs(a - b) for a, b in zip(plain["logprobs"], ours["logprobs"], strict=True))
            print(
                f"{ours['prompt']:5d} {COMPLETION_TOKENS:4d} {group:3d} |"
                f" {plain['seconds']:6.2f} s {plain['mib']:5.0f} MiB |"
                f" {ours['seconds']:6.2f} s {ours['mib']:5.0f} MiB |"
                f" {plain['seconds'] / ours['seconds']:6.1f}  {plain['mib'] / ours['mib']:8.1f}  {gap:.1e}",
                flush=True,
            )


def _child(way: str, prompt: int, group: int, repeats: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.packed_step", "--cell", way, str(prompt), str(group)]
    output = subprocess.run(
        [*command, "--repeats", str(repeats)], check=True, capture_output=True, text=True
    ).stdout
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
