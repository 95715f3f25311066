"""``qhk data filter``: a judge says which pairs look the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from qhk.cli.command import Command, Job
from qhk.cli.process import quiet_libraries
from qhk.errors import UserError
from qhk.files import read_text
from qhk.pairs.manifest import PairManifest, open_manifest
from qhk.plain import print
from qhk.settings.pairs import FilterSettings

if TYPE_CHECKING:
    from qhk.pairs.endpoint import EndpointJudge
    from qhk.pairs.judge import Filtered, Judge
    from qhk.pairs.policy_judge import PolicyJudge

COST_EVERY_S = 30.0
"""While a judge that costs money is asked, its cost so far is told this often."""


def run(job: Job[None]) -> int:
    """Return 0 after the judge was asked about every pair, 1 where it failed on some."""
    from qhk.pairs.judge import filter_pairs
    from qhk.training.display import ConsoleDisplay

    settings = job.settings
    manifest = open_manifest(settings)
    judge = open_judge(manifest, job)
    endpoint = settings.pairs.filter.endpoint
    display = ConsoleDisplay()
    display.line(f"judge: {judge.name}")
    told = time.monotonic()

    with display.task("judging") as bar:

        def progress(number: int, total: int, cost: float) -> None:
            nonlocal told
            bar(number, total)
            if cost > 0.0 and time.monotonic() - told > COST_EVERY_S:
                told = time.monotonic()
                display.line(f"{number}/{total} judged, cost so far {cost:.4f}")

        done = filter_pairs(
            manifest,
            judge,
            limit=settings.pairs.filter.limit,
            price=(endpoint.price_input, endpoint.price_output),
            progress=progress,
        )
    _print_filtered(manifest, done)
    return 1 if done.failures else 0


def open_judge(manifest: PairManifest, job: Job[None]) -> Judge:
    """Return the judge. Raises UserError where its checkpoint or its key file is missing."""
    from qhk.pairs.judge import SimilarityJudge

    chosen = job.settings.pairs.filter
    if chosen.judge == "ssim":
        return SimilarityJudge(manifest, threshold=chosen.threshold)
    if chosen.judge == "endpoint":
        return _endpoint_judge(manifest, chosen)
    return _policy_judge(manifest, job)


def _endpoint_judge(manifest: PairManifest, chosen: FilterSettings) -> EndpointJudge:
    from qhk.pairs.endpoint import EndpointJudge, EndpointOptions

    endpoint = chosen.endpoint
    assert endpoint.url is not None and endpoint.model is not None
    if not endpoint.url.startswith(("http://", "https://")):
        raise UserError(f"pairs.filter.endpoint.url: must begin with http:// or https://, got {endpoint.url}")
    options = EndpointOptions(
        url=endpoint.url,
        model=endpoint.model,
        api_key=_api_key(endpoint.api_key_file),
        question=chosen.question,
        temperature=chosen.temperature,
        max_new_tokens=chosen.max_new_tokens,
        timeout_s=endpoint.timeout_s,
        attempts=endpoint.attempts,
        backoff_s=endpoint.backoff_s,
        max_backoff_s=endpoint.max_backoff_s,
        concurrency=endpoint.concurrency,
        requests_per_minute=endpoint.requests_per_minute,
        max_pixels=endpoint.max_pixels,
        image_format=endpoint.image_format,
        stop_after_failures=endpoint.stop_after_failures,
    )
    return EndpointJudge(manifest, options)


def _api_key(file: str | None) -> str | None:
    if file is None:
        return None
    path = Path(file)
    key = read_text(path).strip() if path.is_file() else ""
    if not key or not key.isascii() or len(key.split()) != 1:
        raise UserError(f"pairs.filter.endpoint.api_key_file: {path} must hold the key and nothing else")
    return key


def _policy_judge(manifest: PairManifest, job: Job[None]) -> PolicyJudge:
    quiet_libraries()
    import torch

    from qhk.cli.checkpoints import evaluated_policy, policy_settings
    from qhk.pairs.policy_judge import PolicyJudge
    from qhk.training.distributed import Processes

    chosen = job.settings.pairs.filter
    settings = policy_settings(job.settings, job.overrides, stage=None, datasets={})
    torch.set_num_threads(settings.training.threads)
    label = settings.checkpoint or settings.model.path or ""
    return PolicyJudge(
        manifest,
        evaluated_policy(settings, device=Processes("single").device),
        label=f"policy:{label}",
        question=chosen.question,
        temperature=chosen.temperature,
        max_new_tokens=chosen.max_new_tokens,
        batch_pairs=chosen.batch_pairs,
        decode_batch=settings.rollout.decode_batch,
        seed=settings.seed,
    )


def _print_filtered(manifest: PairManifest, done: Filtered) -> None:
    from qhk.pairs.strengthen import awaits_review

    same, different = done.verdicts.get("same", 0), done.verdicts.get("different", 0)
    failed = sum(done.failures.values())
    print(f"filter: {same} look the same, {different} differ, {failed} failed, {done.before} were judged")
    for reason, count in sorted(done.failures.items(), key=lambda item: -item[1])[:5]:
        print(f"  failed {count} times: {reason}")
    if failed:
        print("  failures are no answers; the same command asks again")
    if done.prompt_tokens or done.completion_tokens:
        print(f"  tokens: {done.prompt_tokens} in, {done.completion_tokens} out; cost {done.cost:.4f}")
    waiting = sum(awaits_review(pair, "required") for pair in manifest)
    print(f"  {waiting} pairs that the judge calls the same have not been seen by a person")


COMMAND = Command(
    sentence="Asks a judge which pairs look the same; resumes, and keeps every reply.",
    recipes=(
        (
            "a server",
            "qhk data filter pairs.filter.judge=endpoint pairs.filter.endpoint.model=NAME "
            "pairs.filter.endpoint.url=http://127.0.0.1:8000/v1",
        ),
        ("a local model", "qhk data filter model=qwen2_5_vl_7b pairs.filter.judge=policy"),
        ("no model: a threshold on SSIM", "qhk data filter pairs.filter.judge=ssim"),
    ),
    run=run,
)
