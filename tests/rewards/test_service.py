"""A reward from an HTTP service: what is sent, what is tried again, what is kept, what counts as missing."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from qhk.rewards.compose import build_terms
from qhk.rewards.fit import refuse_unfit
from qhk.rewards.service import ServiceReward
from qhk.rewards.term import CompletionsTerm, completions_values
from qhk.service import LARGEST_REPLY, LONGEST_RETRY_S, Access, Reply, Service
from qhk.tasks import find_form
from qhk.types import Answer, Completion, Example
from tests.pairs.server import Behave, Response, serving

QUICK: dict[str, Any] = {"timeout_s": 5.0, "backoff_s": 0.001, "max_backoff_s": 0.002, "attempts": 3}


def completion(text: str, score: float | None = 3.0) -> Completion:
    return Completion(text=text, answer=Answer(score=score), num_tokens=1, truncated=False)


def example(image: Path = Path("one.png")) -> Example:
    return Example(id="7", dataset="set", image=image, mos=2.5, mos_native=2.5, higher_is_better=True)


def rewarded(value: Any) -> Response:
    return Response(body=json.dumps({"reward": value}))


def ask(url: str, texts: Sequence[str], **settings: Any) -> list[float | None]:
    return judged(ServiceReward(url=url, **QUICK | settings), texts)


def judged(judge: ServiceReward, texts: Sequence[str]) -> list[float | None]:
    return judge([completion(text) for text in texts], [example()] * len(texts))


def test_every_completion_is_asked_about_with_its_example(tmp_path: Path) -> None:
    picture, key = tmp_path / "one.png", tmp_path / "key"
    picture.write_bytes(b"pixels")
    key.write_text("secret\n")
    with serving(lambda number, request: rewarded(len(request["text"]))) as server:
        judge = ServiceReward(url=server.url, api_key_file=str(key), send_image=True, **QUICK)
        found = judge([completion("a"), completion("bbb", None)], [example(picture)] * 2)
    assert found == [1.0, 3.0]
    image = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
    common = {"path": "/v1", "id": "7", "dataset": "set", "opinion": 2.5, "image": image}
    sent = sorted(server.requests, key=lambda request: request["text"])
    assert sent == [{**common, "text": "a", "score": 3.0}, {**common, "text": "bbb", "score": None}]
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("fault", "tries", "reward"),
    [
        (Response(status=503), 3, 4.0),
        (Response(status=429, headers={"Retry-After": "0"}), 3, 4.0),
        (rewarded("good"), 3, 4.0),
        (rewarded(True), 3, 4.0),
        (Response(body='{"reward": 1e999}'), 3, 4.0),
        (Response(body="[]"), 3, 4.0),
        (Response(status=400), 1, None),
    ],
)
def test_what_may_help_is_tried_again(fault: Response, tries: int, reward: float | None) -> None:
    behave: Behave = lambda number, request: fault if number < 2 else rewarded(4)  # noqa: E731
    with serving(behave) as server:
        assert ask(server.url, ["x"]) == [reward]
    assert len(server.requests) == tries


def test_no_more_attempts_than_asked_and_a_late_reply_is_none() -> None:
    with serving(lambda number, request: Response(status=500)) as server:
        assert ask(server.url, ["x"], attempts=2) == [None]
        assert len(server.requests) == 2
    with serving(lambda number, request: Response(delay_s=0.6)) as slow:
        assert ask(slow.url, ["x"], timeout_s=0.1, attempts=1) == [None]


def test_rewards_are_kept_and_failures_are_not(tmp_path: Path) -> None:
    behave: Behave = lambda number, request: rewarded(2) if request["text"] == "a" else Response(status=400)  # noqa: E731
    with serving(behave) as server:
        for _ in range(2):
            assert ask(server.url, ["a", "b"], cache=str(tmp_path)) == [2.0, None]
        assert sorted(request["text"] for request in server.requests) == ["a", "b", "b"]
        assert ask(f"{server.url}/other", ["a"], cache=str(tmp_path)) == [2.0]
    assert len(server.requests) == 4
    (kept, _) = tmp_path.glob("*/*.json")
    assert json.loads(kept.read_text()) == {"reward": 2.0}


def test_a_service_that_never_answers_ends_the_run() -> None:
    with serving(lambda number, request: Response(status=400)) as server:
        with pytest.raises(ValueError, match=r"3 failures in a row at .*, the last: status 400"):
            ask(server.url, list("abcdefghi"), stop_after_failures=3, concurrency=1)
        assert len(server.requests) == 3
        with pytest.raises(ValueError, match=r"2 failures in a row at"):
            ask(server.url, ["a", "b"], stop_after_failures=20)


def test_failures_in_a_row_are_counted_from_step_to_step() -> None:
    def behave(number: int, request: dict[str, Any]) -> Response:
        return rewarded(1) if request["text"] == "good" else Response(status=400)

    with serving(behave) as server:
        judge = ServiceReward(url=server.url, **QUICK | {"stop_after_failures": 3, "concurrency": 1})
        assert judged(judge, ["a"]) == [None]
        assert judged(judge, ["good", "b"]) == [1.0, None]
        assert judged(judge, ["c"]) == [None]
        with pytest.raises(ValueError, match="3 failures in a row"):
            judged(judge, ["d"])
        another = ServiceReward(url=server.url, **QUICK | {"stop_after_failures": 3})
        assert judged(another, ["e"]) == [None], "every term counts for itself"


def test_completions_that_a_step_keeps_are_not_asked_again() -> None:
    with serving(lambda number, request: rewarded(number)) as server:
        judge = ServiceReward(url=server.url, **QUICK | {"concurrency": 1})
        assert judged(judge, ["a", "b"]) == [0.0, 1.0]
        assert judged(judge, ["a", "c"]) == [0.0, 2.0]
        assert judged(judge, ["b"]) == [3.0], "what the last call did not have is asked anew"


def unfit(url: str, **settings: Any) -> None:
    spec = {"_target_": "qhk.rewards.service.ServiceReward", "weight": 1.0, "url": url, **QUICK, **settings}
    task = find_form("score")(answer_rule="strict", low=1.0, high=5.0)
    refuse_unfit(build_terms({"judge": spec}), task, [example()], decimals=1, group_size=2, where="stage: ")


def test_the_start_finds_the_service_and_asks_it_nothing(tmp_path: Path) -> None:
    with serving(lambda number, request: Response(status=500)) as server:
        unfit(server.url)
        assert server.requests == []
        with pytest.raises(ValueError) as caught:
            unfit(server.url, api_key_file=str(tmp_path / "none"))
    assert str(caught.value) == (
        f"stage: reward.terms.judge.api_key_file: {tmp_path}/none must hold the key and nothing else"
    )
    port = httpx.URL(server.url).port
    with pytest.raises(ValueError, match=rf"^stage: reward.terms.judge.url: no connection to .*:{port} \("):
        unfit(server.url)


def test_a_server_may_ask_for_two_minutes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it holds up one request (503) or everyone (429)."""
    slept, now = list[float](), [0.0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("qhk.service.asyncio.sleep", sleep)
    monkeypatch.setattr("qhk.service.time.monotonic", lambda: now[0])
    access = Access(
        url="http://127.0.0.1:9",
        api_key=None,
        timeout_s=1.0,
        attempts=2,
        backoff_s=1.0,
        max_backoff_s=2.0,
        concurrency=1,
        requests_per_minute=None,
    )
    service = Service(access, where="url", fix="url")
    for asked, waited in ((86400.0, LONGEST_RETRY_S), (7.0, 7.0)):
        for status in (503, 429):
            slept.clear()
            reply = Reply(status=status, body="", error="", retry_after_s=asked)
            asyncio.run(service._back_off(reply, 1))
            asyncio.run(service._wait_for_turn())
            assert slept == [waited]


def test_a_reply_without_an_end_is_a_failure_and_not_kept_in_memory() -> None:
    long = Response(body='{"reward": 1.0, "more": "' + "x" * LARGEST_REPLY + '"}')
    with serving(lambda number, request: long) as server:
        assert ask(server.url, ["x"], attempts=1) == [None]


def test_equal_completions_are_asked_once_and_earn_the_same() -> None:
    """Also from a judge that draws its answers."""
    with serving(lambda number, request: rewarded(number)) as server:
        first, other, again = ask(server.url, ["a", "b", "a"], concurrency=1)
    assert first == again != other and len(server.requests) == 2


@pytest.mark.parametrize("url", ["judge", "http://", "ftp://127.0.0.1/judge"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url: must be the address of a service"):
        ask(url, ["a"])


@pytest.mark.parametrize("key", ["attempts", "concurrency", "stop_after_failures", "requests_per_minute"])
def test_numbers_are_at_least_one(key: str) -> None:
    target = {"_target_": "qhk.rewards.service.ServiceReward", "weight": 1.0, "url": "http://127.0.0.1:9"}
    build_terms({"judge": target | {key: 1}})
    with pytest.raises(ValueError, match=f"reward.terms.judge.{key}: got 0; give an integer > 0"):
        build_terms({"judge": target | {key: 0}})


def test_a_key_that_is_refused_is_the_users_mistake(tmp_path: Path) -> None:
    refused = pytest.raises(ValueError, match="answered 401 .*; correct url or api_key_file")
    with serving(lambda number, request: Response(status=401)) as server, refused:
        ask(server.url, ["x"])
    with pytest.raises(ValueError, match="api_key_file: .*/none must hold the key and nothing else"):
        ask("http://127.0.0.1:9", ["x"], api_key_file=str(tmp_path / "none"))


def test_at_most_so_many_at_a_time() -> None:
    with serving(lambda number, request: Response(body='{"reward": 0}', delay_s=0.1)) as server:
        assert ask(server.url, list("abcdef"), concurrency=2) == [0.0] * 6
    assert server.busiest <= 2


def build(function: Callable[..., Any]) -> CompletionsTerm:
    (term,) = build_terms({"mine": {"_target_": f"{__name__}.{function.__name__}", "weight": 1.0}})
    assert isinstance(term, CompletionsTerm)
    return term


def lengths(completions: Sequence[Completion], examples: Sequence[Example]) -> list[float | None]:
    return [len(one.text) or None for one in completions]


def too_few(completions: Sequence[Completion], examples: Sequence[Example]) -> list[float | None]:
    return [1.0]


def not_finite(completions: Sequence[Completion], examples: Sequence[Example]) -> list[float | None]:
    return [float("nan")] * len(completions)


def test_a_function_of_many_completions_is_a_term() -> None:
    texts, examples = [completion("ab"), completion("")], [example()] * 2
    assert completions_values(build(lengths), texts, examples) == [2.0, None]
    with pytest.raises(ValueError, match=r"reward.terms.mine: gave 1 values for 2 completions"):
        completions_values(build(too_few), texts, examples)
    with pytest.raises(ValueError, match=r"reward.terms.mine: gave nan for 7; a reward must be a finite"):
        completions_values(build(not_finite), texts, examples)
