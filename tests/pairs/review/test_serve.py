from __future__ import annotations

import http.client
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.pairs.review.serve import listen
from tests.pairs.review.served import Server


def test_ctrl_c_ends_cleanly_and_frees_the_port(pairs: Callable[[int], Path]) -> None:
    server = Server(pairs(1))
    talk = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    talk.request("GET", "/api/alive")  # stays open: a waiting browser must not delay the end
    assert talk.getresponse().status == 204
    assert server.stop(signal.SIGINT) == 0
    listen(server.port).close()


def test_paths_are_refused_as_they_come(pairs: Callable[[int], Path]) -> None:
    server = Server(pairs(1))
    for path in ("/page/../app.py", "/../../../../etc/passwd", "/page//etc/passwd", "//etc/passwd"):
        talk = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        talk.request("GET", path)
        assert talk.getresponse().status == 404
        talk.close()
    server.stop()


def test_a_chunked_body_is_counted_whatever_its_header_says(pairs: Callable[[int], Path]) -> None:
    server = Server(pairs(1))
    head = (
        f"POST /api/decide HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: http://127.0.0.1:{server.port}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as talk:
        talk.sendall(head.encode() + 3 * chunk)  # the last chunk never comes
        reply = http.client.HTTPResponse(talk)
        reply.begin()
        assert (reply.status, "65536 bytes" in json.load(reply)["error"]) == (413, True)
    server.stop()


def test_only_loopback_is_listened_on_and_zero_is_any_free_port() -> None:
    with listen(0) as first, listen(0) as second:
        assert first.getsockname()[0] == "127.0.0.1"
        assert 0 < first.getsockname()[1] != second.getsockname()[1] > 0


def test_a_taken_port_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"port={port}: .*; choose another, or port=0"):
            listen(port)
