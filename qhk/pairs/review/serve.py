"""Serves the review page on loopback until Ctrl-C, and says what was answered."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from qhk.errors import UserError
from qhk.pairs.manifest import open_pairs
from qhk.pairs.review.app import build_app
from qhk.pairs.review.desk import Desk, next_commands
from qhk.pairs.review.queue import Order, Queue, Scope
from qhk.pairs.review.reviews import Reviews
from qhk.plain import print

LOOPBACK = "127.0.0.1"


def review(
    path: Path,
    *,
    roots: Sequence[Path],
    port: int,
    blind: bool,
    scope: Scope,
    types: Collection[str],
    order: Order,
    prefetch: int,
) -> None:
    """Serve a manifest's pairs until Ctrl-C, then print each reviewer's answers and what comes next.

    Their pictures lie beside it or in ``roots``. Raises UserError for a missing manifest, an empty
    queue or a taken port.
    """
    manifest = open_pairs(path, roots=roots)
    queue = Queue(manifest, order=order, scope=scope, types=types)
    if len(queue) == 0:
        raise UserError(
            f"scope={scope}: none of the {len(manifest)} pairs of {path} is to be reviewed; "
            "scope=all shows every pair"
        )
    reviews = Reviews(manifest)

    def announce(address: str) -> None:
        print(f"{len(queue)} of {len(manifest)} pairs of {path}: {address}", flush=True)
        print("Ctrl-C ends; every answer is in the manifest already", file=sys.stderr, flush=True)

    serve(Desk(reviews=reviews, queue=queue, blind=blind, prefetch=prefetch), port=port, on_ready=announce)
    for name in reviews.reviewers():
        counts = reviews.counts(name)
        said = ", ".join(f"{answer} {count}" for answer, count in counts.items() if count)
        print(f"{name}: {said or 'no answers'}")
    print("\n".join(["once all reviewers are done:", *(f"  {line}" for line in next_commands(path))]))


def serve(desk: Desk, *, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; ``on_ready`` is called with the address once connections are taken.

    ``port`` 0 picks a free one. Raises ``UserError`` where the port is taken.
    """
    serve_app(build_app(desk), port=port, on_ready=on_ready)


def serve_app(app: ASGIApp, *, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve any guarded application on loopback, as ``serve`` does."""
    listener = listen(port)
    config = uvicorn.Config(
        app,
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
