"""Keeps other web sites out of a server on loopback: host names, origins, and what a page may load."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
MAX_BODY_BYTES = 65536
TOO_LONG = f"a write must be at most {MAX_BODY_BYTES} bytes long and say how long it is"
SAFE_METHODS = ("GET", "HEAD")

ANSWER_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Reply(JSONResponse):
    """A JSON reply in ASCII, so that any text of a manifest can be in it: half a surrogate is no UTF-8."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class Guard:
    """Refuses what did not come from the page itself, before any of it is read.

    A page of another site cannot name this server (DNS rebinding shows in ``Host``), cannot post to it
    (``Origin`` must be this server's, the body JSON), and cannot embed its pictures. ``policy`` says what the
    page may load; by default what the server has.
    """

    def __init__(self, app: ASGIApp, *, policy: str = ANSWER_HEADERS["Content-Security-Policy"]) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # start and end of the server
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is not None:
            status, line = refusal
            await Reply({"error": line}, status)(scope, receive, send)
            return
        num_bytes = 0

        async def receive_limited() -> Message:
            # Counted as they come: a chunked body may be longer than the header says.
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, TOO_LONG)
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = {**ANSWER_HEADERS, "Content-Security-Policy": self._policy}
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive_limited, send_with_headers)


def _refusal(method: str, path: str, headers: Headers) -> tuple[int, str] | None:
    """Return status and reason where a request is refused."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or _host_name(hosts[0]) not in LOOPBACK_NAMES:
        return 421, f"Host {', '.join(hosts) or '(none)'}: open the page as http://127.0.0.1:PORT"
    site, navigates = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode") == "navigate"
    if site not in (None, "same-origin", "none") and not (navigates and path == "/"):
        return 403, "another site's page must not use this server"
    if method in SAFE_METHODS:
        return None
    if headers.get("origin") != f"http://{hosts[0]}":
        return 403, f"Origin {headers.get('origin')}: only the page of this server may write"
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return 415, "a write must be application/json"
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        return 413, TOO_LONG
    return None


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
