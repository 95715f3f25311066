"""``qhk data review``: serves the page on which people confirm pairs, until Ctrl-C."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from qhk.cli.command import LightCommand, LightJob
from qhk.errors import UserError
from qhk.settings.base import Node, Text
from qhk.settings.pairs import PairsSettings
from qhk.settings.paths import PathsSettings


class ReviewRequest(Node):
    """How pairs are served: from which manifest, where, which of them, in which order."""

    paths: PathsSettings
    pairs: PairsSettings
    port: Annotated[int, Field(ge=0, le=65535)]
    blind: bool
    scope: Literal["to_confirm", "all"]
    types: list[Text]
    order: Literal["manifest", "shuffled", "judge_least_sure"]
    prefetch: Annotated[int, Field(ge=0, le=20)]


def run(job: LightJob[ReviewRequest]) -> int:
    """Return 0 after Ctrl-C. Raises UserError for a missing manifest, an empty queue or a taken port."""
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
        raise UserError("qhk data review needs the extra review; install it: pip install 'qhk[review]'")
    from qhk.data.roots import picture_roots
    from qhk.pairs.review.serve import review

    request = job.request
    review(
        Path(request.pairs.manifest),
        roots=picture_roots(request.paths, request.pairs),
        port=request.port,
        blind=request.blind,
        scope=request.scope,
        types=request.types,
        order=request.order,
        prefetch=request.prefetch,
    )
    return 0


COMMAND = LightCommand(
    sentence="Serves a local page on which people confirm pairs, by keyboard, until Ctrl-C.",
    recipes=(
        ("what the judge called the same", "qhk data review"),
        ("every pair, what the judge doubted first", "qhk data review scope=all order=judge_least_sure"),
        ("another manifest, on a free port", "qhk data review pairs.manifest=pairs.jsonl port=0"),
    ),
    request=ReviewRequest,
    run=run,
)
