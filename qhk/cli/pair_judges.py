"""The judge that ``pairs.filter`` asks for, opened and checked before the first pair is looked at."""

from __future__ import annotations

from pathlib import Path

import torch

from qhk.cli.checkpoints import evaluated_policy, policy_settings
from qhk.cli.quiet import quiet_libraries
from qhk.errors import UserError
from qhk.files import read_text
from qhk.pairs.endpoint import EndpointJudge, EndpointOptions
from qhk.pairs.judge import Judge, SimilarityJudge
from qhk.pairs.manifest import PairManifest
from qhk.pairs.policy_judge import PolicyJudge
from qhk.settings import Settings
from qhk.training.distributed import Processes


def open_judge(manifest: PairManifest, settings: Settings, overrides: list[str]) -> Judge:
    """The judge. Raises ValueError where its checkpoint or its key file is missing."""
    chosen = settings.pairs.filter
    if chosen.judge == "ssim":
        return SimilarityJudge(manifest, threshold=chosen.threshold)
    if chosen.judge == "endpoint":
        return _endpoint_judge(manifest, settings)
    return _policy_judge(manifest, settings, overrides)


def _endpoint_judge(manifest: PairManifest, settings: Settings) -> EndpointJudge:
    chosen, endpoint = settings.pairs.filter, settings.pairs.filter.endpoint
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
    path = Path(file).expanduser()
    key = read_text(path).strip() if path.is_file() else ""
    if not key or not key.isascii() or len(key.split()) != 1:
        raise UserError(f"pairs.filter.endpoint.api_key_file: {path} must hold the key and nothing else")
    return key


def _policy_judge(manifest: PairManifest, settings: Settings, overrides: list[str]) -> PolicyJudge:
    quiet_libraries()
    chosen = settings.pairs.filter
    settings = policy_settings(settings, overrides, stage=None, datasets={})
    torch.set_num_threads(settings.training.threads)
    label = settings.checkpoint or settings.model.path or ""
    return PolicyJudge(
        manifest,
        evaluated_policy(settings, device=Processes("single").device),
        label=f"policy:{Path(label).expanduser() if settings.checkpoint else label}",
        question=chosen.question,
        temperature=chosen.temperature,
        max_new_tokens=chosen.max_new_tokens,
        batch_pairs=chosen.batch_pairs,
        decode_batch=settings.rollout.decode_batch,
        seed=settings.seed,
    )
