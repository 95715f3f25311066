from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from starlette.testclient import TestClient

from qhk.data.image import load_image
from qhk.pairs.manifest import PairManifest, open_pairs
from qhk.pairs.records import judgement_row, pair_row
from qhk.pairs.review.app import build_app, read_page_files
from qhk.pairs.review.desk import next_commands
from tests.pairs.builders import degraded, source
from tests.pairs.review.conftest import desk_over

HOST = "127.0.0.1:8377"
ORIGIN = {"Origin": f"http://{HOST}"}


def client_for(path: Path, *, blind: bool = True) -> TestClient:
    return TestClient(build_app(desk_over(path, blind=blind)), base_url=f"http://{HOST}", headers=ORIGIN)


@pytest.fixture
def path(pairs: Callable[[int], Path]) -> Path:
    return pairs(7)


@pytest.fixture
def client(path: Path) -> Iterator[TestClient]:
    with client_for(path) as client:
        yield client


def post(client: TestClient, number: int = 0, answer: str = "same", **more: Any) -> Any:
    body = {
        "manifest": client.get("/api/session").json()["id"],
        "reviewer": "Ann",
        "pair": f"group_{number:06d}",
        "version": 1,
        "answer": answer,
        "key": f"a key for {number} {answer}",
        "seconds": 2.0,
    }
    content = json.dumps(body | more)  # in ASCII, as httpx would not write half a surrogate
    return client.post("/api/decide", content=content, headers={"Content-Type": "application/json"})


def decisions(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["kind"] == "decision"]


def test_a_window_of_the_queue_follows_the_answers(client: TestClient) -> None:
    post(client, 0)
    window = client.get("/api/queue", params={"reviewer": "Ann", "start": 0, "count": 3}).json()
    assert [pair["id"] for pair in window["pairs"]] == [f"group_{n:06d}" for n in (1, 2, 3)]
    assert window["total"] == 7
    decided = client.get("/api/queue", params={"reviewer": "Ann", "show": "decided", "count": 3}).json()
    assert [(pair["place"], pair["answer"]) for pair in decided["pairs"]] == [(0, "same")]


def test_an_answer_is_told_with_the_progress_and_is_on_disk(client: TestClient, path: Path) -> None:
    reply = post(client, 4, "different")
    assert reply.status_code == 200
    assert reply.json()["progress"] == {"answers": {"different": 1}, "answered": 1, "total": 7, "pace": None}
    assert [(row["group_id"], row["verdict"]) for row in decisions(path)] == [("group_000004", "different")]
    body = {"manifest": client.get("/api/session").json()["id"], "reviewer": "Ann", "key": "undo key"}
    undone = client.post("/api/undo", json=body).json()
    assert (undone["pair"]["id"], undone["answer"], undone["progress"]["answered"]) == (
        "group_000004",
        None,
        0,
    )
    assert client.post("/api/undo", json=body | {"key": "another key"}).status_code == 409


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"answer": "maybe"}, "answer: must be one of same, different"),
        ({"version": "1"}, "version: must be a whole number"),
        ({"version": True}, "version: must be a whole number"),
        ({"version": 2}, "no version 2"),
        ({"pair": "../../etc/passwd"}, "no version 1 of such a pair"),
        ({"key": "short"}, "key: must be 8 to 64"),
        ({"reviewer": " \n"}, "reviewer: must be a name"),
        ({"reviewer": "a" * 41}, "reviewer: must be a name"),
        ({"manifest": "of yesterday"}, "another manifest"),
        ({"pair": "\ud800"}, "no version 1 of such a pair"),
        ({"reviewer": "\ud800"}, "reviewer: must be a name"),
    ],
)
def test_an_answer_that_does_not_fit_writes_nothing(
    client: TestClient, path: Path, change: dict[str, Any], line: str
) -> None:
    before = path.read_bytes()
    reply = post(client, **change)
    assert reply.status_code == 422 and line in reply.json()["error"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("depth", [500, 1000, 30_000])
def test_nested_brackets_are_refused_as_any_other_body(client: TestClient, path: Path, depth: int) -> None:
    before, session = path.read_bytes(), client.get("/api/session").json()["id"]
    body = f'{{"manifest": "{session}", "reviewer": "Ann", "answer": {"[" * depth}{"]" * depth}}}'
    reply = client.post("/api/decide", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422 and reply.json()["error"].isascii()
    assert path.read_bytes() == before


def test_text_of_a_manifest_that_is_no_unicode_is_told_as_it_is(path: Path) -> None:
    copy = degraded("\ud800", path="copies/0_noise.png")
    open_pairs(path).append([pair_row("group_odd", source("0.png"), copy)])
    assert client_for(path, blind=False).get("/api/session").json()["types"][-1] == "\ud800"


def test_what_comes_next_is_a_command_that_shell_and_hydra_read(tmp_path: Path) -> None:
    for name in ("plain.jsonl", 'it\'s a "pair" of $(touch x), ä=[1].jsonl', "back\\slash.jsonl"):
        words = shlex.split(next_commands(tmp_path / name)[0])
        assert words[:3] == ["qhk", "data", "strengthen"]
        override = OverridesParser.create().parse_override(words[3])
        assert (override.key_or_group, str(override.value())) == ("pairs.manifest", str(tmp_path / name))


def test_one_reviewer_has_one_spelling(client: TestClient, path: Path) -> None:
    post(client, 0, reviewer="Ann  Lee")
    post(client, 1, reviewer=" ann lee ")
    assert {row["reviewer"] for row in decisions(path)} == {"Ann Lee"}
    assert client.get("/api/session").json()["reviewers"] == ["Ann Lee"]


def test_pictures_are_the_pixels_that_training_sees(client: TestClient, path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # stored lying on its side
    file = path.parent / "images" / "0.png"
    picture.save(file, exif=exif, icc_profile=b"not a profile")
    reply = client.get("/api/picture", params={"pair": "group_000000", "version": 1, "side": "original"})
    shown = Image.open(io.BytesIO(reply.content))
    assert shown.size == (30, 40) and "icc_profile" not in shown.info and not shown.getexif()
    assert np.array_equal(np.asarray(shown), np.asarray(load_image(file)))
    copy = client.get("/api/picture", params={"pair": "group_000000", "version": 1, "side": "copy"})
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(copy.content))),
        np.asarray(load_image(path.parent / "copies" / "0_noise.png")),
    )


@pytest.mark.parametrize(
    "target",
    [
        "/api/picture?pair=../pairs.jsonl&version=1&side=original",
        "/api/picture?pair=/etc/passwd&version=1&side=original",
        "/api/picture?pair=group_000000&version=2&side=copy",
        "/api/picture?pair=group_000000&version=0&side=copy",
        "/page/..%2f..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page/..\\app.py",
        "/pairs.jsonl",
        "/images/0.png",
    ],
)
def test_nothing_outside_the_manifest_is_served(client: TestClient, target: str) -> None:
    assert client.get(target).status_code == 404


def test_a_broken_picture_is_named_but_not_its_degradation(path: Path) -> None:
    (path.parent / "copies" / "0_noise.png").write_bytes(b"no picture")
    params = {"pair": "group_000000", "version": "1", "side": "copy"}
    blind, seeing = (
        client_for(path, blind=blind).get("/api/picture", params=params) for blind in (True, False)
    )
    assert blind.status_code == seeing.status_code == 422
    assert "0_noise.png" in seeing.json()["error"]
    assert "noise" not in blind.text and "not a readable image" in blind.json()["error"]


def test_blind_tells_neither_type_nor_verdict(path: Path) -> None:
    manifest = open_pairs(path)
    pair = manifest.pairs["group_000001"]
    manifest.append([judgement_row(pair, judge="j", verdict="same", reply="yes", failure="")])
    for blind in (True, False):
        with client_for(path, blind=blind) as client:
            reply = client.get("/api/queue", params={"reviewer": "Ann", "start": 1, "type": "blur"})
            (item,) = reply.json()["pairs"]
            assert ("blur" in reply.text, "same" in reply.text) == (not blind, not blind)
            assert client.get("/api/session").json()["types"] == ([] if blind else ["blur", "jpeg", "noise"])
    assert item["degradation"] == "blur 2" and item["judge"] == "same"


def test_agreement_of_two_reviewers(client: TestClient) -> None:
    for number, answer in enumerate(["same", "same", "different", "unsure"]):
        post(client, number, answer)
    for number, answer in enumerate(["same", "different", "different", "same"]):
        post(client, number, answer, reviewer="Ben", key=f"key of ben {number}")
    found = client.get("/api/agreement").json()
    (between,) = found["between"]
    # 2 of 3 agree; chance (2 * 1 + 1 * 2) / 9 = 1/3
    assert (between["n"], between["fraction"]) == (3, pytest.approx(2 / 3))
    assert between["kappa"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert (found["shared"], found["disagreements"]) == (3, 1)
    assert found["reviewers"]["Ann"] == {"same": 2, "different": 1, "unsure": 1}


def test_a_pair_is_found_by_place_and_by_name(client: TestClient) -> None:
    found = [
        client.get("/api/pair", params={"reviewer": "Ann"} | by)
        for by in ({"place": 5}, {"id": "group_000005"})
    ]
    assert [reply.json()["place"] for reply in found] == [5, 5]
    assert client.get("/api/pair", params={"reviewer": "Ann", "place": 7}).status_code == 404
    assert client.get("/api/pair", params={"reviewer": "Ann", "place": "-1"}).status_code == 422


def test_new_pairs_and_verdicts_of_other_processes_appear(client: TestClient, path: Path) -> None:
    from tests.pairs.builders import row

    open_pairs(path).append([row(70)])
    assert client.get("/api/queue", params={"reviewer": "Ann", "count": 1}).json()["total"] == 8


def test_a_disk_that_refuses_is_told_and_tried_again(
    client: TestClient, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: PairManifest, rows: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PairManifest, "append", full)
        reply = post(client)
        assert reply.status_code == 507 and "No space left" in reply.json()["error"]
    assert post(client).status_code == 200 and len(decisions(path)) == 1


def test_the_page_needs_nothing_from_elsewhere() -> None:
    found = read_page_files()
    assert {"index.html", "style.css", "main.js", "stage.js"} <= set(found)
    for name, (content, _) in found.items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, name
