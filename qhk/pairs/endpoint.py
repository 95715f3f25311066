"""An OpenAI-compatible server as a judge: many questions at once, retries, and every reply kept."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx
from PIL import Image

from qhk.errors import UserError
from qhk.files import parse_json
from qhk.pairs.judge import Emit, Judged, failed_answer, load_pair, question_digest, read_answer
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair
from qhk.service import Access, Reply, Service


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """How the server is reached and asked; see ``pairs.filter`` for each value."""

    url: str
    model: str
    api_key: str | None
    question: str
    temperature: float
    max_new_tokens: int
    timeout_s: float
    attempts: int
    backoff_s: float
    max_backoff_s: float
    concurrency: int
    requests_per_minute: int | None
    max_pixels: int
    image_format: str
    stop_after_failures: int


class EndpointJudge:
    """Asks about pairs concurrently; answers arrive in any order and are handed over at once."""

    def __init__(self, manifest: PairManifest, options: EndpointOptions) -> None:
        self.manifest, self.options = manifest, options
        asked = {name: getattr(options, name) for name in ("temperature", "max_new_tokens", "max_pixels")}
        digest = question_digest(options.question, image_format=options.image_format, **asked)
        self.name = f"{options.model}@{httpx.URL(options.url).netloc.decode()}#{digest}"
        self.service = Service(
            Access(
                url=f"{options.url.rstrip('/')}/chat/completions",
                api_key=options.api_key,
                timeout_s=options.timeout_s,
                attempts=options.attempts,
                backoff_s=options.backoff_s,
                max_backoff_s=options.max_backoff_s,
                concurrency=options.concurrency,
                requests_per_minute=options.requests_per_minute,
            ),
            where="pairs.filter.endpoint",
            fix="url, model or api_key_file",
        )
        self._failed_in_row = 0

    def judge(self, pairs: Sequence[Pair], emit: Emit) -> None:
        """Emit one answer per pair.

        Raises ``UserError`` where the server refuses us (401, 403, 404), and after
        ``stop_after_failures`` failures in a row; what was said until then has been handed over.
        """
        self.service.for_each(pairs, partial(self._work, emit))

    async def _work(self, emit: Emit, client: httpx.AsyncClient, pair: Pair) -> None:
        answer = await self._ask(client, pair)
        emit([answer])
        self._failed_in_row = self._failed_in_row + 1 if answer.verdict is None else 0
        if self._failed_in_row >= self.options.stop_after_failures:
            raise UserError(
                f"pairs.filter.endpoint: {self._failed_in_row} failures in a row, the last: "
                f"{answer.failure}; correct the server or the settings, then run again: answers are kept"
            )

    async def _ask(self, client: httpx.AsyncClient, pair: Pair) -> Judged:
        version = pair.copy.version
        try:
            payload = await asyncio.to_thread(self._payload, pair, version)
        except ValueError as error:
            return failed_answer(pair, version, error)
        answer, failed = await self.service.ask(client, payload, partial(self._read, pair, version))
        if answer is not None:
            return _with(answer, attempts=len(failed) + 1, failed_attempts=failed)
        last = failed[-1]
        cause = last["error"] or f"status {last['status']}"
        return Judged(
            pair=pair,
            version=version,
            verdict=None,
            failure=f"{cause} after {len(failed)} attempts",
            reply=last["body"] or None,
            more={"attempts": len(failed), "failed_attempts": failed},
        )

    def _read(self, pair: Pair, version: int, reply: Reply) -> Judged | None:
        """Return the answer in a response, be it a refusal or unreadable, or None."""
        if reply.status != 200:
            return None
        try:
            body = parse_json(reply.body)
            choice = body["choices"][0]
            message = choice["message"]
            content, refusal = message.get("content"), message.get("refusal")
            usage = body.get("usage") or {}
            more = {
                "prompt_tokens": int(usage.get("prompt_tokens") or 0),
                "completion_tokens": int(usage.get("completion_tokens") or 0),
                "body": reply.body,
            }
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return None
        if refusal or choice.get("finish_reason") == "content_filter":
            return Judged(
                pair=pair,
                version=version,
                verdict=None,
                failure="refused",
                reply=refusal or content,
                more=more,
            )
        if not isinstance(content, str):
            return None
        verdict, failure = read_answer(content)
        return Judged(pair=pair, version=version, verdict=verdict, failure=failure, reply=content, more=more)

    def _payload(self, pair: Pair, version: int) -> bytes:
        pictures = [
            _data_url(image, self.options) for image in load_pair(self.manifest, pair, version=version)
        ]
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": picture}} for picture in pictures
        ]
        content.append({"type": "text", "text": self.options.question})
        request = {
            "model": self.options.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": self.options.temperature,
            "max_tokens": self.options.max_new_tokens,
        }
        return json.dumps(request).encode()


def _with(answer: Judged, **more: Any) -> Judged:
    return replace(answer, more={**answer.more, **more})


def _data_url(image: Image.Image, options: EndpointOptions) -> str:
    """Return the picture as a data URL, shrunk to ``max_pixels`` where it has more."""
    share = math.sqrt(options.max_pixels / (image.width * image.height))
    if share < 1:
        size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if options.image_format == "jpeg":
        image.save(buffer, "JPEG", quality=95)
    else:
        image.save(buffer, "PNG", compress_level=1)
    return f"data:image/{options.image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"
