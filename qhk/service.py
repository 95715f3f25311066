"""Requests to an HTTP service: many at once, at a pace, tried again where that may help."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from qhk.errors import UserError
from qhk.files import read_text

T = TypeVar("T")
Item = TypeVar("Item")

TRY_AGAIN = frozenset({408, 409, 425, 429})
OUR_FAULT = {401: "the key is not accepted", 403: "the key has no access", 404: "no such address or model"}
LONGEST_RETRY_S = 120.0
"""The longest wait that a server may ask for: one that asks for hours would hold a step up for as long."""

LARGEST_REPLY = 1 << 20
"""Bytes of a reply that are read, unpacked: one without an end would fill the memory."""

KEPT_OF_ERRORS = 2000
"""Characters of an error's body that are kept; an answer's body is kept whole."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a service is reached: its address, the key that it is shown, and how patiently it is asked.

    ``attempts`` are those of one request; the wait between them doubles from ``backoff_s`` up to
    ``max_backoff_s``, and a server's Retry-After counts more, up to two minutes.
    """

    url: str
    api_key: str | None
    timeout_s: float
    attempts: int
    backoff_s: float
    max_backoff_s: float
    concurrency: int
    requests_per_minute: int | None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One response: its status and body. Status 0: none came, and ``error`` says why."""

    status: int
    body: str
    error: str
    retry_after_s: float | None = None

    @property
    def worth_trying_again(self) -> bool:
        return self.status == 0 or self.status >= 500 or self.status in TRY_AGAIN

    def as_row(self) -> dict[str, Any]:
        return {"status": self.status, "error": self.error, "body": self.body[:KEPT_OF_ERRORS]}


def read_key(file: str | None, *, key: str) -> str | None:
    """Return the key that a file holds, None for no file. ``key`` is the setting that names it."""
    if file is None:
        return None
    path = Path(file)
    text = read_text(path).strip() if path.is_file() else ""
    if not text or not text.isascii() or len(text.split()) != 1:
        raise UserError(f"{key}: {path} must hold the key and nothing else")
    return text


class Service:
    """A service that takes JSON; ``where`` stands before messages about it, ``fix`` says what to correct."""

    def __init__(self, access: Access, *, where: str, fix: str) -> None:
        self.access, self.where, self.fix = access, where, fix
        self._free_at = 0.0

    def client(self) -> httpx.AsyncClient:
        """Return a client with the key, as a context to send requests in."""
        key = self.access.api_key
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.access.timeout_s,
            limits=httpx.Limits(max_connections=self.access.concurrency),
            trust_env=False,
        )

    def for_each(
        self, items: Sequence[Item], work: Callable[[httpx.AsyncClient, Item], Awaitable[None]]
    ) -> None:
        """Do ``work`` on every item, at most ``concurrency`` at a time; the first error ends all."""
        asyncio.run(self._for_each(items, work))

    async def _for_each(
        self, items: Sequence[Item], work: Callable[[httpx.AsyncClient, Item], Awaitable[None]]
    ) -> None:
        async def take(client: httpx.AsyncClient, queue: Iterator[Item]) -> None:
            for item in queue:
                await work(client, item)

        queue = iter(items)
        async with self.client() as client:
            count = min(self.access.concurrency, len(items))
            workers = [asyncio.create_task(take(client, queue)) for _ in range(count)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def reach(self) -> None:
        """Raise ``UserError`` where no connection to the address opens, in as many attempts as a request has.

        Nothing is sent, so nothing is asked, or paid for.
        """
        asyncio.run(self._reach())

    async def _reach(self) -> None:
        url = httpx.URL(self.access.url)
        port = url.port or {"https": 443}.get(url.scheme, 80)
        why = ""
        for attempt in range(1, self.access.attempts + 1):
            try:
                async with asyncio.timeout(self.access.timeout_s):
                    _, writer = await asyncio.open_connection(url.host, port)
                writer.close()
                return
            except TimeoutError:
                why = f"none within {self.access.timeout_s:g} s"
            except OSError as error:
                why = error.strerror or str(error)
            if attempt < self.access.attempts:
                await self._back_off(Reply(status=0, body="", error=why), attempt)
        raise UserError(
            f"{self.where}: no connection to {url.host}:{port} ({why}); "
            f"start the service, or correct {self.fix}"
        )

    async def ask(
        self, client: httpx.AsyncClient, payload: bytes, read: Callable[[Reply], T | None]
    ) -> tuple[T | None, list[dict[str, Any]]]:
        """Return what ``read`` finds in a reply, and the attempts before it that failed; None where all did.

        A reply in which it finds nothing (None) is a failure, too. Raises ``UserError`` for a status that no
        payload can be blamed for (401, 403, 404).
        """
        failed: list[dict[str, Any]] = []
        for attempt in range(1, self.access.attempts + 1):
            await self._wait_for_turn()
            reply = await self._send(client, payload)
            found = read(reply)
            if found is not None:
                return found, failed
            failed.append(reply.as_row())
            if not reply.worth_trying_again and reply.status != 200:
                break
            if attempt < self.access.attempts:
                await self._back_off(reply, attempt)
        return None, failed

    async def _send(self, client: httpx.AsyncClient, payload: bytes) -> Reply:
        url = self.access.url
        try:
            async with asyncio.timeout(self.access.timeout_s):
                headers = {"Content-Type": "application/json"}
                async with client.stream("POST", url, content=payload, headers=headers) as response:
                    body = bytearray()
                    async for piece in response.aiter_bytes():
                        body += piece
                        if len(body) > LARGEST_REPLY:
                            return Reply(status=0, body="", error=f"a reply over {LARGEST_REPLY} bytes")
        except (TimeoutError, httpx.TimeoutException):
            return Reply(status=0, body="", error=f"no reply within {self.access.timeout_s:g} s")
        except httpx.HTTPError as error:
            return Reply(status=0, body="", error=f"{type(error).__name__}")
        if response.status_code in OUR_FAULT:
            raise UserError(
                f"{self.where}: {url} answered {response.status_code} "
                f"({OUR_FAULT[response.status_code]}); correct {self.fix}"
            )
        return Reply(
            status=response.status_code,
            body=body.decode(response.encoding or "utf-8", errors="replace"),
            error="" if response.status_code == 200 else f"status {response.status_code}",
            retry_after_s=_seconds(response.headers.get("Retry-After")),
        )

    async def _wait_for_turn(self) -> None:
        """Wait until the server may be asked again: after a rate limit, or for the pace per minute."""
        while (wait := self._free_at - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self.access.requests_per_minute is not None:
            self._free_at = time.monotonic() + 60.0 / self.access.requests_per_minute

    async def _back_off(self, reply: Reply, attempt: int) -> None:
        """Wait longer after every attempt, and as the server says; a rate limit holds up everyone."""
        wait = self.access.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        wait = min(wait, self.access.max_backoff_s)
        if reply.retry_after_s is not None:
            wait = max(wait, min(reply.retry_after_s, LONGEST_RETRY_S))
        if reply.status == 429:
            self._free_at = max(self._free_at, time.monotonic() + wait)
        else:
            await asyncio.sleep(wait)


def _seconds(header: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header; None where there is none, or a date."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
