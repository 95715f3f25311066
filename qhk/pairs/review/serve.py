"""Serves the review page on loopback until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from qhk.errors import UserError
from qhk.pairs.review.app import build_app
from qhk.pairs.review.desk import Desk

LOOPBACK = "127.0.0.1"


def serve(desk: Desk, *, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; ``on_ready`` is called with the address once connections are taken.

    ``port`` 0 picks a free one. Raises ``UserError`` where the port is taken.
    """
    listener = listen(port)
    config = uvicorn.Config(
        build_app(desk),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=60,
        timeout_graceful_shutdown=2,
    )
    with listener:
        on_ready(f"http://{LOOPBACK}:{listener.getsockname()[1]}/")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return


def listen(port: int) -> socket.socket:
    """Return a listening socket on loopback."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(
            f"port={port}: {error.strerror}; choose another, or port=0 for any free one"
        ) from None
    return listener
