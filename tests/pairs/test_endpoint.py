from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qhk.data.image import load_image
from qhk.pairs.endpoint import EndpointJudge, EndpointOptions
from qhk.pairs.judge import Filtered, filter_pairs
from qhk.pairs.manifest import PairManifest, open_pairs
from tests.pairs.server import Response, Server, serving


def options(url: str, **changes: Any) -> EndpointOptions:
    values: dict[str, Any] = {
        "url": url,
        "model": "judge-1",
        "api_key": "sk-secret",
        "question": "Do they look the same?",
        "temperature": 0.0,
        "max_new_tokens": 10,
        "timeout_s": 5.0,
        "attempts": 3,
        "backoff_s": 0.01,
        "max_backoff_s": 0.05,
        "concurrency": 2,
        "requests_per_minute": None,
        "max_pixels": 1_000_000,
        "image_format": "png",
        "stop_after_failures": 100,
    }
    return EndpointOptions(**values | changes)


def ask(manifest: PairManifest, server: Server, **changes: Any) -> Filtered:
    judge = EndpointJudge(manifest, options(server.url, **changes))
    return filter_pairs(
        manifest, judge, limit=None, price=(2.0, 10.0), progress=lambda done, total, cost: None
    )


def records(manifest: PairManifest) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in manifest.path.read_text().splitlines()]
    return [row for row in rows if row["kind"] == "judgement"]


def test_answers_replies_tokens_and_cost(degraded_six: PairManifest) -> None:
    texts = ["yes", "No.", "YES!", "no, clearly", "<answer>yes</answer>", "No"]
    with serving(lambda number, request: Response(text=texts[number])) as server:
        done = ask(degraded_six, server)
    assert done.verdicts == {"same": 3, "different": 3} and done.failures == {} and done.before == 0
    assert (done.prompt_tokens, done.completion_tokens) == (600, 12)
    assert done.cost == pytest.approx((600 * 2 + 12 * 10) / 1e6)
    rows = records(degraded_six)
    assert sorted(row["reply"] for row in rows) == sorted(texts)
    assert all(json.loads(row["body"])["usage"]["prompt_tokens"] == 100 for row in rows)
    assert all(row["judge"].startswith("judge-1@127.0.0.1:") for row in rows)
    assert "sk-secret" not in degraded_six.path.read_text()
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-secret"}


def test_what_is_sent_is_the_pair(degraded_six: PairManifest) -> None:
    with serving(lambda number, request: Response()) as server:
        ask(degraded_six, server, concurrency=1)
    for request, pair in zip(server.requests, degraded_six, strict=True):
        assert request["path"] == "/v1/chat/completions"
        assert (request["model"], request["temperature"], request["max_tokens"]) == ("judge-1", 0.0, 10)
        first, second, text = request["messages"][0]["content"]
        assert text["text"] == "Do they look the same?"
        for part, path in ((first, degraded_six.source_path(pair)), (second, degraded_six.copy_path(pair))):
            head, _, data = part["image_url"]["url"].partition(",")
            assert head == "data:image/png;base64"
            sent = Image.open(io.BytesIO(base64.b64decode(data)))
            assert sent.convert("RGB").tobytes() == load_image(path).tobytes()


def test_large_pictures_are_shrunk_alike(degraded_six: PairManifest) -> None:
    with serving(lambda number, request: Response()) as server:
        ask(degraded_six, server, max_pixels=1000, image_format="jpeg")
    for request in server.requests:
        sizes = []
        for part in request["messages"][0]["content"][:2]:
            data = part["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
            sizes.append(Image.open(io.BytesIO(base64.b64decode(data))).size)
        assert sizes[0] == sizes[1] == (35, 28)  # 60x48 by sqrt(1000/2880)


@pytest.mark.parametrize(
    "fault",
    [
        Response(status=500, body="boom"),
        Response(status=503, body=""),
        Response(status=408, body=""),
        Response(body="<html>gateway</html>"),
        Response(body='{"choices": []}'),
        Response(body='{"choices": [{"message": {"content": null}}]}'),
        Response(body="[1, 2]"),
        Response(body='{"error": {"message": "overloaded"}}'),
        Response(body="[" * 1_990),
        Response(body='{"choices": [{"message": {"content": "yes"}}], "usage": {"prompt_tokens": 1e999}}'),
        Response(drop=True),
    ],
    ids=[
        "500",
        "503",
        "408",
        "html",
        "no-choices",
        "null",
        "list",
        "error-in-200",
        "nested",
        "infinite",
        "disconnect",
    ],
)
def test_faults_that_pass_are_tried_again(degraded_six: PairManifest, fault: Response) -> None:
    with serving(lambda number, request: fault if number == 0 else Response(text="no")) as server:
        done = ask(degraded_six, server, concurrency=1)
    assert done.verdicts == {"different": 6} and done.failures == {}
    assert len(server.requests) == 7
    first = records(degraded_six)[0]
    assert first["attempts"] == 2 and len(first["failed_attempts"]) == 1
    if fault.body and not fault.drop:
        assert first["failed_attempts"][0]["body"] == fault.body, "what came instead is kept"


def test_faults_that_stay_are_failures_and_no_answers(degraded_six: PairManifest) -> None:
    """Release defect: failed calls were marked done."""
    with serving(lambda number, request: Response(status=500, body="boom")) as server:
        done = ask(degraded_six, server)
        assert len(server.requests) == 18
        assert done.verdicts == {} and done.failures == {"status 500 after 3 attempts": 6}
        assert all(pair.verdict is None for pair in degraded_six)
    with serving(lambda number, request: Response(text="yes")) as server:
        again = EndpointJudge(degraded_six, options(server.url))
        again.name = records(degraded_six)[0]["judge"]
        done = filter_pairs(degraded_six, again, limit=None, price=(0, 0), progress=lambda *_: None)
    assert done.verdicts == {"same": 6} and done.before == 0


@pytest.mark.parametrize("slow", [Response(delay_s=1.0), Response(dribble_s=0.05)], ids=["late", "dribbling"])
def test_a_slow_reply_times_out(degraded_six: PairManifest, slow: Response) -> None:
    with serving(lambda number, request: slow if number == 0 else Response()) as server:
        done = ask(degraded_six, server, timeout_s=0.3, concurrency=1)
    assert done.verdicts == {"same": 6}
    assert records(degraded_six)[0]["failed_attempts"][0]["error"] == "no reply within 0.3 s"


def test_no_server_at_all(degraded_six: PairManifest) -> None:
    with serving(lambda number, request: Response()) as server:
        pass
    done = ask(degraded_six, server)
    assert done.failures == {"ConnectError after 3 attempts": 6}


def test_a_rate_limit_holds_everyone_up(degraded_six: PairManifest) -> None:
    limited = Response(status=429, body="slow down", headers={"Retry-After": "0.4"})
    with serving(lambda number, request: limited if number == 0 else Response(delay_s=0.02)) as server:
        done = ask(degraded_six, server, concurrency=1)
    assert done.verdicts == {"same": 6}
    assert server.times[1] - server.times[0] >= 0.4
    assert records(degraded_six)[0]["failed_attempts"][0]["status"] == 429


def test_requests_are_spread_over_the_minute(degraded_six: PairManifest) -> None:
    with serving(lambda number, request: Response()) as server:
        ask(degraded_six, server, requests_per_minute=1200, concurrency=4)
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert sum(gaps) >= 5 * 0.05 * 0.9


def test_no_more_questions_at_once_than_allowed(degraded_six: PairManifest) -> None:
    with serving(lambda number, request: Response(delay_s=0.05)) as server:
        ask(degraded_six, server, concurrency=2)
    assert server.busiest == 2


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Response(text="I'm sorry, I can't help with that."), "refused"),
        (Response(message={"content": None, "refusal": "I will not."}), "refused"),
        (Response(text="", finish_reason="content_filter"), "refused"),
        (Response(text="maybe"), "neither yes nor no"),
        (Response(text="yes and no"), "neither yes nor no"),
        (Response(text=""), "empty reply"),
        (Response(text="\ud800"), "empty reply"),
    ],
)
def test_replies_without_an_answer_are_kept_as_failures(
    degraded_six: PairManifest, response: Response, reason: str
) -> None:
    with serving(lambda number, request: response) as server:
        done = ask(degraded_six, server)
    assert done.failures == {reason: 6} and len(server.requests) == 6, "asking again would not help"
    message = response.message or {"content": response.text}
    assert {row["reply"] for row in records(degraded_six)} == {message.get("refusal") or message["content"]}
    assert done.prompt_tokens == 600, "they cost as much as answers"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_not_repeated(degraded_six: PairManifest, status: int) -> None:
    with serving(lambda number, request: Response(status=status, body="too large")) as server:
        done = ask(degraded_six, server)
    assert done.failures == {f"status {status} after 1 attempts": 6} and len(server.requests) == 6


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_address_stops_at_once(degraded_six: PairManifest, status: int) -> None:
    with (
        serving(lambda number, request: Response(status=status, body="")) as server,
        pytest.raises(ValueError, match=f"answered {status} .*correct url, model or api_key_file"),
    ):
        ask(degraded_six, server)
    assert len(server.requests) <= 2 and records(degraded_six) == []


def test_failures_in_a_row_stop_the_filter(degraded_six: PairManifest) -> None:
    with (
        serving(lambda number, request: Response(text="no" if number < 2 else "hm")) as server,
        pytest.raises(ValueError, match="3 failures in a row, the last: neither yes nor no"),
    ):
        ask(degraded_six, server, concurrency=1, stop_after_failures=3)
    assert len(server.requests) == 5
    assert [pair.verdict for pair in open_pairs(degraded_six.path)].count("different") == 2


def test_a_second_call_asks_about_nothing_that_was_answered(degraded_six: PairManifest) -> None:
    with serving(lambda number, request: Response(text="hm" if number == 2 else "yes")) as server:
        first = ask(degraded_six, server, concurrency=1)
        second = ask(open_pairs(degraded_six.path), server, concurrency=1)
        other = ask(open_pairs(degraded_six.path), server, question="Equal?")
    assert first.failures == {"neither yes nor no": 1} and (second.before, second.verdicts) == (
        5,
        {"same": 1},
    )
    assert other.before == 0, "another question is another judge"
    assert len(server.requests) == 6 + 1 + 6


SCRIPT = """
import sys
from pathlib import Path
from qhk.pairs.endpoint import EndpointJudge
from qhk.pairs.judge import filter_pairs
from qhk.pairs.manifest import open_pairs
from tests.pairs.test_endpoint import options
manifest = open_pairs(Path(sys.argv[1]))
judge = EndpointJudge(manifest, options(sys.argv[2], concurrency=1))
filter_pairs(manifest, judge, limit=None, price=(0, 0), progress=lambda *_: None)
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGKILL"])
def test_an_interruption_keeps_every_answer_that_came(degraded_six: PairManifest, signal: str) -> None:
    import signal as signals

    behave = lambda number, request: Response(delay_s=0.0 if number < 3 else 30.0)  # noqa: E731
    with serving(behave) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(degraded_six.path), server.url],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.DEVNULL,
        )
        while len(server.requests) < 4:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(getattr(signals, signal))
        assert process.wait(timeout=20) != 0
    opened = open_pairs(degraded_six.path)
    assert [pair.verdict for pair in opened].count("same") == 3
    with serving(lambda number, request: Response(text="no")) as server:
        judge = EndpointJudge(opened, options(server.url))
        judge.name = records(opened)[0]["judge"]
        done = filter_pairs(opened, judge, limit=None, price=(0, 0), progress=lambda *_: None)
    assert (done.before, done.verdicts) == (3, {"different": 3})
