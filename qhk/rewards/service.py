"""A reward that an HTTP service gives: a judge, an editor, a reward model of one's own."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import httpx

from qhk.errors import UserError
from qhk.files import parse_json, read_bytes, read_text, write_atomically
from qhk.plain import show_value
from qhk.rewards.term import Above, Judge, Positive
from qhk.service import Access, Reply, Service, read_key
from qhk.types import Completion, Example

Whole = Annotated[int, Above(0)]


class ServiceReward(Judge):
    """The number that the service at ``url`` gives each completion, None where it gave none.

    Each completion is one POST of ``{"id", "dataset", "text", "score", "opinion"}`` and, with ``send_image``,
    ``"image"``, the file of the first picture as a data URL. The reply is ``{"reward": NUMBER}``. Time-outs,
    lost connections, 408, 409, 425, 429, 5xx and replies of another form are tried again, ``attempts`` times
    in all, ``concurrency`` requests at a time. A completion without a reward gets the mean of its group's
    others (0 where there are none), which teaches nothing; ``train/reward/NAME/missing_frac`` is their share
    of a step, ``missing_total`` their number so far. ``concurrency`` and ``requests_per_minute`` are those
    of one process.

    ``api_key_file`` holds the key and nothing else, sent as a bearer token. ``cache`` is a folder where
    rewards are kept by what was asked, so that a run that resumes, or another one, asks each question once;
    equal completions of one step are asked once in any case, and those that a step keeps while it draws
    fresh prompts are not asked again.

    A call raises ``UserError`` for 401, 403 and 404, after ``stop_after_failures`` failures without a reward
    between, in one step or several, and where all of a call's failed, if it asked twice at least. The run
    ends once more than ``most_missing`` completions have no reward, over all processes and
    steps, those of groups that dynamic sampling replaced among them.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key_file: str | None = None,
        send_image: bool = False,
        timeout_s: Positive = 60.0,
        attempts: Whole = 3,
        backoff_s: Positive = 1.0,
        max_backoff_s: Positive = 30.0,
        concurrency: Whole = 8,
        requests_per_minute: Whole | None = None,
        cache: str | None = None,
        stop_after_failures: Whole = 20,
        most_missing: Whole | None = None,
    ) -> None:
        _check_url(url)
        self.most_missing = most_missing
        self._api_key_file, self._send_image = api_key_file, send_image
        self._cache = None if cache is None else Path(cache)
        self._stop_after, self._failed_in_row = stop_after_failures, 0
        self._before: dict[bytes, float] = {}  # what the last call found, by digest
        self._access = Access(
            url=url,
            api_key=None,
            timeout_s=timeout_s,
            attempts=attempts,
            backoff_s=backoff_s,
            max_backoff_s=max_backoff_s,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
        )

    def check(self) -> None:
        """Raise ``UserError`` where the key cannot be read, or no connection opens; nothing is asked."""
        self._service.reach()

    def __call__(self, completions: Sequence[Completion], examples: Sequence[Example]) -> list[float | None]:
        """Return the reward of each completion."""
        payloads = [
            _payload(completion, example, send_image=self._send_image)
            for completion, example in zip(completions, examples, strict=True)
        ]
        # A judge that draws its answers would give equal completions of one group different rewards.
        rewards = self._ask_all(list(dict.fromkeys(payloads)))
        self._before = {_digest(payload): found for payload, found in rewards.items() if found is not None}
        return [rewards[payload] for payload in payloads]

    @cached_property
    def _service(self) -> Service:
        """The service with its key. It lasts as long as the term, and so does its pace."""
        access = replace(self._access, api_key=read_key(self._api_key_file, key="api_key_file"))
        return Service(access, where="url", fix="url or api_key_file")

    def _ask_all(self, payloads: Sequence[bytes]) -> dict[bytes, float | None]:
        """Return the reward of each payload, from what is known of it, else from the service."""
        service, cache = self._service, self._cache
        rewards: dict[bytes, float | None] = {}
        for payload in payloads:
            known = self._before.get(_digest(payload))
            kept = None if known is not None or cache is None else _read_kept(_kept(cache, service, payload))
            rewards[payload] = kept if known is None else known
        asked = [payload for payload, reward in rewards.items() if reward is None]
        failed_here = 0

        async def ask(client: httpx.AsyncClient, payload: bytes) -> None:
            nonlocal failed_here
            found, failed = await service.ask(client, payload, _read)
            rewards[payload] = found
            self._failed_in_row = self._failed_in_row + 1 if found is None else 0
            failed_here += found is None
            if found is not None and cache is not None:
                write_atomically(_kept(cache, service, payload), json.dumps({"reward": found}) + "\n")
            if self._failed_in_row >= self._stop_after or failed_here == max(2, len(asked)):
                cause = failed[-1]["error"] or show_value(failed[-1]["body"])
                raise UserError(
                    f"url: {self._failed_in_row} failures in a row at {service.access.url}, the last: "
                    f"{cause}; correct the service or the settings"
                )

        service.for_each(asked, ask)
        return rewards


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(
            f"url: must be the address of a service such as http://127.0.0.1:8000/judge, got {url!r}"
        )


def _payload(completion: Completion, example: Example, *, send_image: bool) -> bytes:
    asked = {
        "id": example.id,
        "dataset": example.dataset,
        "text": completion.text,
        "score": completion.answer.score,
        "opinion": example.mos,
    }
    if send_image:
        kind = mimetypes.guess_type(example.image)[0] or "application/octet-stream"
        content = base64.b64encode(read_bytes(example.image)).decode()
        asked["image"] = f"data:{kind};base64,{content}"
    return json.dumps(asked, sort_keys=True).encode()


def _digest(payload: bytes) -> bytes:
    """Return what stands for a payload, which may hold a picture."""
    return hashlib.sha256(payload).digest()


def _kept(cache: Path, service: Service, payload: bytes) -> Path:
    digest = hashlib.sha256(service.access.url.encode() + b"\n" + payload).hexdigest()
    return cache / digest[:2] / f"{digest}.json"


def _read_kept(file: Path) -> float | None:
    return _number(read_text(file)) if file.is_file() else None


def _read(reply: Reply) -> float | None:
    return _number(reply.body) if reply.status == 200 else None


def _number(text: str) -> float | None:
    """Return the finite number in ``{"reward": NUMBER}``, None for anything else."""
    try:
        value = parse_json(text)["reward"]
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    return number if number is not None and abs(number) < float("inf") else None
