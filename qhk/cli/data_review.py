"""``qhk data review``: serves the page on which people confirm pairs, until Ctrl-C."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from qhk.cli.requests import ReviewRequest
from qhk.errors import UserError


def run(request: ReviewRequest) -> int:
    """0 after Ctrl-C. Raises ValueError for a missing manifest, an empty queue or a taken port."""
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
        raise UserError("qhk data review needs the extra review; install it: pip install 'qhk[review]'")
    from qhk.pairs.manifest import open_pairs
    from qhk.pairs.review.desk import Desk
    from qhk.pairs.review.queue import Queue
    from qhk.pairs.review.reviews import Reviews
    from qhk.pairs.review.serve import serve

    path = Path(request.pairs.manifest)
    manifest = open_pairs(path)
    queue = Queue(manifest, order=request.order, scope=request.scope, types=request.types)
    if len(queue) == 0:
        raise UserError(
            f"scope={request.scope}: none of the {len(manifest)} pairs of {path} is to be reviewed; "
            "scope=all shows every pair"
        )
    reviews = Reviews(manifest)

    def announce(address: str) -> None:
        print(f"{len(queue)} of {len(manifest)} pairs of {path}: {address}", flush=True)
        print("Ctrl-C ends; every answer is in the manifest already", file=sys.stderr, flush=True)

    desk = Desk(reviews=reviews, queue=queue, blind=request.blind, prefetch=request.prefetch)
    serve(desk, port=request.port, on_ready=announce)
    for name in reviews.reviewers():
        counts = reviews.counts(name)
        said = ", ".join(f"{answer} {count}" for answer, count in counts.items() if count)
        print(f"{name}: {said or 'no answers'}")
    return 0
