"""The routes of the review page. Pictures go by a pair's name alone: no request can name a path."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qhk.data.image import load_image
from qhk.errors import UserError
from qhk.files import parse_json
from qhk.pairs.records import ANSWERS
from qhk.pairs.review.desk import SIDES, Decide, Desk
from qhk.pairs.review.guard import Guard, Reply
from qhk.pairs.review.queue import SHOWS

CONTENT_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
MANY = 10**9
LONGEST_NAME = 40
LONGEST_KEY = 64
MOST_SECONDS = 86400.0


def build_app(desk: Desk) -> Starlette:
    """Return the application over one desk."""
    routes = Routes(desk, read_page_files())
    return Starlette(
        routes=[
            Route("/", routes.page),
            Route("/page/{name}", routes.page_file),
            Route("/api/alive", routes.alive),
            Route("/api/session", _guarded(routes.session)),
            Route("/api/queue", _guarded(routes.queue)),
            Route("/api/pair", _guarded(routes.pair)),
            Route("/api/agreement", _guarded(routes.agreement)),
            Route("/api/picture", _guarded(routes.picture)),
            Route("/api/decide", _posted(routes.decide), methods=["POST"]),
            Route("/api/undo", _posted(routes.undo), methods=["POST"]),
        ],
        middleware=[Middleware(Guard)],
    )


def read_page_files() -> dict[str, tuple[bytes, str]]:
    """Return file name -> content and type of everything the page consists of."""
    found = {}
    for file in files("qhk.pairs.review").joinpath("page").iterdir():
        kind = CONTENT_TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[file.name] = (file.read_bytes(), kind)
    return found


class Routes:
    """The endpoints; all that touch disk run in threads."""

    def __init__(self, desk: Desk, page_files: dict[str, tuple[bytes, str]]) -> None:
        self._desk = desk
        self._files = page_files

    def page(self, request: Request) -> Response:
        return self._file("index.html")

    def page_file(self, request: Request) -> Response:
        return self._file(request.path_params["name"])

    async def alive(self, request: Request) -> Response:
        return Response(status_code=204)

    def session(self, request: Request) -> Response:
        named = "reviewer" in request.query_params
        return Reply(self._desk.session(self._reviewer(request) if named else None))

    def queue(self, request: Request) -> Response:
        query = request.query_params
        show = next((word for word in SHOWS if word == query.get("show", "todo")), None)
        if show is None:
            raise UserError(f"show: must be one of {', '.join(SHOWS)}, got {query.get('show')!r}")
        window = self._desk.window(
            self._reviewer(request),
            show=show,
            kind=query.get("type", ""),
            start=read_place(query.get("start", ""), default=0, high=MANY),
            count=read_place(query.get("count", ""), default=1, high=MANY),
        )
        return Reply(window)

    def pair(self, request: Request) -> Response:
        query, reviewer = request.query_params, self._reviewer(request)
        if "place" in query:
            found = self._desk.at(reviewer, read_place(query["place"], default=0, high=MANY))
        else:
            found = self._desk.find(reviewer, query.get("id", ""))
        if found is None:
            return _missing(
                f"no such pair; give a number from 1 to {len(self._desk.queue)}, or a pair's name"
            )
        return Reply(found)

    def agreement(self, request: Request) -> Response:
        return Reply(self._desk.agreement())

    def picture(self, request: Request) -> Response:
        query = request.query_params
        side = next((word for word in SIDES if word == query.get("side")), None)
        if side is None:
            raise UserError(f"side: must be one of {', '.join(SIDES)}, got {query.get('side')!r}")
        version = read_place(query.get("version", ""), default=1, high=MANY)
        try:
            path = self._desk.picture(query.get("pair", ""), version, side)
        except UserError as error:
            raise UserError("the manifest may not lead there" if self._desk.blind else str(error)) from None
        if path is None:
            return _missing("no such picture")
        try:
            return Response(as_bitmap(path), media_type="image/bmp")
        except ValueError as error:
            # A copy's path may tell its degradation.
            line = str(error).replace(str(path), f"the {side}'s file") if self._desk.blind else str(error)
            raise UserError(line) from None

    def decide(self, body: dict[str, Any]) -> Response:
        self._check_manifest(body)
        return Reply(self._desk.decide(read_decide(body, self._desk.reviews.reviewers())))

    def undo(self, body: dict[str, Any]) -> Response:
        self._check_manifest(body)
        reviewer = reviewer_name(body.get("reviewer"), self._desk.reviews.reviewers())
        outcome = self._desk.undo(reviewer, read_key(body.get("key")))
        if outcome is None:
            return Reply({"error": "there is no answer to take back"}, 409)
        return Reply(outcome)

    def _check_manifest(self, body: dict[str, Any]) -> None:
        """Refuse an answer of a page that an earlier server on this port gave out for another manifest."""
        if body.get("manifest") != self._desk.manifest_id:
            raise UserError("this server reviews another manifest than this page shows; reload the page")

    def _reviewer(self, request: Request) -> str:
        return reviewer_name(request.query_params.get("reviewer"), self._desk.reviews.reviewers())

    def _file(self, name: str) -> Response:
        if name not in self._files:
            return _missing("no such file")
        content, kind = self._files[name]
        return Response(content, headers={"Content-Type": kind})


def _guarded(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Return the endpoint with our refusals as status 422 and their line."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except ValueError as error:
            return Reply({"error": str(error)}, 422)

    return answer


def _posted(endpoint: Callable[[dict[str, Any]], Response]) -> Any:
    """Return the endpoint with a post's JSON object; a disk that does not take an answer is status 507."""

    async def answer(request: Request) -> Response:
        try:
            body = parse_json(await request.body())
            if not isinstance(body, dict):
                raise UserError("the body must be a JSON object")
            return await run_in_threadpool(endpoint, body)
        except ValueError as error:
            return Reply({"error": str(error)}, 422)
        except RecursionError:  # of the parser, or of a message that shows the value
            return Reply({"error": "the body is nested too deeply"}, 422)
        except HTTPException as error:
            return Reply({"error": error.detail}, error.status_code)
        except OSError as error:
            return Reply({"error": f"not saved: {error}"}, 507)

    return answer


def _missing(line: str) -> Response:
    return Reply({"error": line}, 404)


def read_decide(body: Mapping[str, Any], known: Sequence[str]) -> Decide:
    """Return the answer in a request; ``known`` are the reviewers so far, see ``reviewer_name``."""
    answer = next((word for word in ANSWERS if word == body.get("answer")), None)
    if answer is None:
        raise UserError(f"answer: must be one of {', '.join(ANSWERS)}, got {body.get('answer')!r}")
    version = body.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise UserError(f"version: must be a whole number, got {version!r}")
    return Decide(
        reviewer=reviewer_name(body.get("reviewer"), known),
        group_id=str(body.get("pair")),
        version=version,
        answer=answer,
        key=read_key(body.get("key")),
        seconds=_looked_at(body.get("seconds")),
    )


def reviewer_name(value: Any, known: Sequence[str]) -> str:
    """Return the name with single spaces; in the spelling of ``known`` where it differs in case alone.

    Raises ``UserError`` for an empty, overlong or unprintable name.
    """
    name = " ".join(unicodedata.normalize("NFC", value).split()) if isinstance(value, str) else ""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise UserError(f"reviewer: must be a name of 1 to {LONGEST_NAME} letters, got {str(value)[:60]!r}")
    return next((other for other in known if other.casefold() == name.casefold()), name)


def read_key(value: Any) -> str:
    """Return the key of a request."""
    if not isinstance(value, str) or not 8 <= len(value) <= LONGEST_KEY or not value.isascii():
        raise UserError(f"key: must be 8 to {LONGEST_KEY} ASCII characters, got {str(value)[:60]!r}")
    return value


def read_place(text: str, *, default: int, high: int) -> int:
    """Return a whole number in [0, high] from a query; ``default`` for an empty one."""
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) > high:
        raise UserError(f"{text[:40]!r}: must be a whole number from 0 to {high}")
    return int(text)


def _looked_at(value: Any) -> float | None:
    """Return how long the pair was in sight; None where a browser says something else."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MOST_SECONDS:
        return None
    return round(float(value), 3)


def as_bitmap(path: Path) -> bytes:
    """Return the upright RGB picture as BMP: lossless, and without a colour profile for browsers to apply.

    Uncompressed, because a reviewer waits: for 8 megapixels, PNG takes 30 times as long to write and still
    makes a quarter of the bytes. Raises ``UserError`` like ``load_image``.
    """
    buffer = io.BytesIO()
    load_image(path).save(buffer, "BMP")
    return buffer.getvalue()
