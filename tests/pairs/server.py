"""A real HTTP server on 127.0.0.1 that answers as an OpenAI-compatible one, or misbehaves as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Response:
    """What the server does with one request; ``drop`` closes the connection after half the body.

    ``dribble_s`` waits so long before every byte of it.
    """

    status: int = 200
    body: str | None = None
    text: str = "yes"
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False
    dribble_s: float = 0.0
    message: dict[str, Any] | None = None
    finish_reason: str = "stop"

    def payload(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        choice = {
            "index": 0,
            "finish_reason": self.finish_reason,
            "message": self.message or {"role": "assistant", "content": self.text},
        }
        usage = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102}
        return json.dumps(
            {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}
        ).encode()


Behave = Callable[[int, dict[str, Any]], Response]
"""The response to request number n (from 0) with its JSON body."""


@dataclass
class Server:
    """The running server: its base URL, what it was sent, and how busy it was at most."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(behave: Behave) -> Iterator[Server]:
    """A server that runs inside the block."""
    state = Server(url="")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                number = len(state.requests)
                state.requests.append({"path": self.path, **request})
                state.headers.append(dict(self.headers))
                state.times.append(time.monotonic())
                state.busy += 1
                state.busiest = max(state.busiest, state.busy)
            try:
                self.answer(behave(number, request))
            except (BrokenPipeError, ConnectionResetError):
                pass
            finally:
                with state.lock:
                    state.busy -= 1

        def answer(self, response: Response) -> None:
            time.sleep(response.delay_s)
            payload = response.payload()
            self.send_response(response.status)
            for name, value in {"Content-Type": "application/json", **response.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            if response.drop:
                self.wfile.write(payload[: len(payload) // 2])
                self.close_connection = True
                return
            for byte in payload if response.dribble_s else ():
                time.sleep(response.dribble_s)
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
            if not response.dribble_s:
                self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
