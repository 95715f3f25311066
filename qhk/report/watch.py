"""The report on loopback, made anew when a run wrote something, and looked at again by the open page."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from qhk.pairs.review.guard import Guard
from qhk.pairs.review.serve import serve_app
from qhk.plain import print
from qhk.report.content import ReportOptions, gather
from qhk.report.memory import Memory
from qhk.report.render import html
from qhk.report.runs import Runs, read_runs

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page holds its own script and styles, and may ask this server whether there is news."""

WATCHED = ("results.json", "metrics.jsonl", "status.json", "config.yaml")


class Report:
    """The page of some runs as last made; made anew when one of their files changed."""

    def __init__(self, paths: Sequence[Path], options: ReportOptions) -> None:
        self._paths, self._options = paths, options
        self._lock = threading.Lock()
        self._state, self._page = "", ""
        self._memory = Memory()

    def state(self) -> str:
        """Return a text that changes whenever a watched file or the state of a run does."""
        with self._lock:
            return _state(self._runs())

    def page(self) -> str:
        """Return the page of the present state."""
        with self._lock:
            runs = self._runs()
            state = _state(runs)
            if state != self._state:
                content = gather(runs, self._options, lambda what, done, of: None)
                self._page = html({**content, "state": state}, connect="'self'")
                self._state = state
            return self._page

    def _runs(self) -> Runs:
        return read_runs(*self._paths, memory=self._memory)


def _state(runs: Runs) -> str:
    seen = hashlib.sha256()
    for record in runs.records:
        # A run whose process is gone has failed, though no file of it says so.
        seen.update(f"{record.directory}\0{record.state}\0".encode())
        for name in WATCHED:
            file = record.directory / name
            there = file.stat() if file.exists() else None
            seen.update(f"{there and (there.st_mtime_ns, there.st_size)}\0".encode())
    return seen.hexdigest()[:16]


def build_app(report: Report) -> ASGIApp:
    """Return the application: the page, and the state that the open page asks for."""

    def page(_: Request) -> Response:
        return HTMLResponse(report.page())

    def state(_: Request) -> Response:
        return JSONResponse({"state": report.state()})

    return Guard(Starlette(routes=[Route("/", page), Route("/state", state)]), policy=POLICY)


def watch(paths: Sequence[Path], options: ReportOptions, *, port: int) -> None:
    """Serve the report until Ctrl-C. Raises ``UserError`` for a path without runs or a taken port."""
    report = Report(paths, options)
    report.page()

    def announce(address: str) -> None:
        print(f"report of {options.title}: {address}", flush=True)
        print("Ctrl-C ends", file=sys.stderr, flush=True)

    serve_app(build_app(report), port=port, on_ready=announce)
