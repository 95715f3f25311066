from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from qhk.pairs.review.app import build_app
from qhk.pairs.review.guard import MAX_BODY_BYTES
from tests.pairs.review.conftest import desk_over

ORIGIN = "http://127.0.0.1:8377"


@pytest.fixture
def client(pairs: Callable[[int], Path]) -> TestClient:
    return TestClient(build_app(desk_over(pairs(1))), base_url=ORIGIN)


@pytest.mark.parametrize("host", ["127.0.0.1:8377", "localhost:1", "[::1]:8377", "LOCALHOST"])
def test_loopback_names_are_served(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "192.168.0.2:8377", "", "[::1"],
)
def test_other_names_are_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/api/session", "/api/picture?pair=group_000000&version=1&side=copy"):
        reply = client.get(path, headers={"Host": host})
        assert reply.status_code == 421 and "Host" in reply.json()["error"]


def post(client: TestClient, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/api/undo", content=b"{}", headers={"Content-Type": "application/json"} | named)


def test_posts_come_from_the_page_itself(client: TestClient) -> None:
    assert post(client, Origin=ORIGIN).status_code == 422  # let through, and found empty
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://localhost:8377",
        "https://127.0.0.1:8377",
    ):
        assert post(client, Origin=origin).status_code == 403
    assert post(client).status_code == 403


def test_posts_are_small_json(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert post(client, Origin=ORIGIN, Content_Type=kind).status_code == 415
    reply = client.post(
        "/api/undo",
        content=b" " * (MAX_BODY_BYTES + 1),
        headers={"Origin": ORIGIN, "Content-Type": "application/json"},
    )
    assert reply.status_code == 413


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_pages_embed_nothing(client: TestClient, site: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    assert (
        client.get("/api/picture?pair=group_000000&version=1&side=copy", headers=headers).status_code == 403
    )
    follow = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=follow).status_code == 200
    assert client.get("/api/session", headers=follow).status_code == 403


def test_every_answer_says_what_may_be_done_with_it(client: TestClient) -> None:
    headers = client.get("/").headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
