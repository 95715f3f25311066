"""The page in a real Chromium, with a scripted reviewer at the keyboard."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qhk.pairs.review.desk import next_commands
from tests.pairs.review.conftest import write_pairs
from tests.pairs.review.served import Server

pytestmark = pytest.mark.browser

KEYS = {"s": "same", "d": "different", "f": "unsure", "x": "unusable", "g": "skip"}
Serve = Callable[..., Server]
Open = Callable[..., Any]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(path: Path, *, blind: bool = True) -> Server:
        servers.append(Server(path, blind=blind))
        return servers[-1]

    yield start
    for server in servers:
        assert server.process is not None
        if server.process.poll() is None:
            server.stop()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Open]:
    """Opens the page as a reviewer in a browser of their own; a script error fails the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def start(server: Server, name: str = "Ann", *, width: int = 1280, height: int = 720) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(server.url)
        page.wait_for_selector("#name-dialog[open]")
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        return page

    yield start
    for context in contexts:
        context.close()
    assert not errors


def group(number: int) -> str:
    return f"group_{number:06d}"


def await_pair(page: Any, number: int) -> None:
    page.wait_for_selector(f'main[data-pair="{group(number)}"][aria-busy="false"]', timeout=15000)


def decisions(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["kind"] == "decision"]


def canvas(page: Any) -> np.ndarray:
    """The RGB pixels of the picture area."""
    script = """() => {
      const canvas = document.getElementById("canvas");
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let text = "";
      for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
      return [canvas.width, canvas.height, btoa(text)];
    }"""
    width, height, text = page.evaluate(script)
    values = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return values.reshape(height, width, 4)[..., :3].astype(int)


def halves(pixels: np.ndarray, gap: int = 16) -> tuple[np.ndarray, np.ndarray]:
    half = (pixels.shape[1] - gap) // 2
    return pixels[:, :half], pixels[:, pixels.shape[1] - half :]


def test_two_hundred_pairs_through_kills_and_lost_replies(
    tmp_path: Path, serve: Serve, open_page: Open
) -> None:
    path = write_pairs(tmp_path / "set", 203)
    server = serve(path)
    page = open_page(server)
    expected = []
    for number in range(200):
        await_pair(page, number)
        assert len(decisions(path)) == number if number % 20 == 0 else True
        key = "sdfxg"[number % 5]
        expected.append((group(number), KEYS[key]))
        if number == 60:  # the answer meets no server
            server.stop()
            page.keyboard.press(key)
            page.wait_for_selector("#lost:not([hidden]):has-text('kept here')")
            page.keyboard.press("s")  # must not count for a pair that is not in sight
            server.start()
        elif number == 100:  # it is written, and the reply does not arrive
            page.route("**/api/decide", lambda route: (route.fetch(), route.abort()), times=1)
            page.keyboard.press(key)
        elif number == 140:  # the process dies while the answer is on its way
            page.keyboard.press(key)
            server.stop()
            server.start()
        else:
            page.keyboard.press(key)
    await_pair(page, 200)
    assert page.is_hidden("#lost")
    assert [(row["group_id"], row["verdict"]) for row in decisions(path)] == expected
    assert "160 answered" in page.inner_text("#progress") and "per min" in page.inner_text("#progress")


def test_an_answer_given_before_the_page_was_closed_is_sent_later(
    tmp_path: Path, serve: Serve, open_page: Open
) -> None:
    path = write_pairs(tmp_path / "set", 4)
    server = serve(path)
    page = open_page(server)
    await_pair(page, 0)
    server.stop()
    page.keyboard.press("d")
    page.wait_for_selector("#lost:not([hidden])")
    context = page.context
    page.close()
    server.start()
    page = context.new_page()
    page.goto(server.url)
    await_pair(page, 1)
    assert [(row["group_id"], row["verdict"]) for row in decisions(path)] == [(group(0), "different")]


def test_undo_two_reviewers_and_their_agreement(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    path = write_pairs(tmp_path / "set", 6)
    server = serve(path)
    ann = open_page(server, "Ann")
    for number, key in enumerate("ssdd"):
        await_pair(ann, number)
        ann.keyboard.press(key)
    await_pair(ann, 4)
    for number in (3, 2):
        ann.keyboard.press("Backspace")
        await_pair(ann, number)
    assert "2 answered" in ann.inner_text("#progress")
    ann.keyboard.press("s")
    await_pair(ann, 3)
    ann.keyboard.press("d")
    await_pair(ann, 4)
    ben = open_page(server, "Ben")
    for number, key in enumerate("sdsdf"):
        await_pair(ben, number)
        ben.keyboard.press(key)
    await_pair(ben, 5)
    ben.keyboard.press("i")
    text = ben.inner_text("#agreement-dialog[open]")
    # Ann s s s d, Ben s d s d: 3 of 4 agree; chance (3 * 2 + 1 * 2) / 16 = 1/2
    assert "Ann \u2013 Ben\t4\t75.0 %\t0.500" in text and "1 disagreement" in text
    ben.keyboard.press("Escape")
    ben.select_option("#show", "disagreements")
    await_pair(ben, 1)
    assert "of 6" in ben.inner_text("#place")
    votes = Counter(row["verdict"] for row in decisions(path) if row["reviewer"] == "Ann")
    assert votes == {"same": 3, "different": 3, None: 2}


def textured(tmp_path: Path, width: int, height: int) -> tuple[Path, np.ndarray, np.ndarray]:
    path = write_pairs(tmp_path / "set", 2, width=width, height=height)
    original = np.random.default_rng(5).integers(20, 200, (height, width, 3), dtype=np.uint8)
    Image.fromarray(original).save(path.parent / "images" / "0.png")
    Image.fromarray(original + 5).save(path.parent / "copies" / "0_noise.png")
    return path, original.astype(int), original.astype(int) + 5


def test_views_show_the_very_pixels(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    path, original, copy = textured(tmp_path, 200, 120)
    page = open_page(serve(path), width=1000, height=600)
    await_pair(page, 0)
    left, right = halves(canvas(page))
    top = (left.shape[0] - 120 + 1) // 2
    assert np.array_equal(left[top : top + 120, -200:], original)
    assert np.array_equal(right[top : top + 120, :200], copy)

    def single() -> np.ndarray:
        pixels = canvas(page)
        start = (pixels.shape[1] - 200 + 1) // 2
        return pixels[top : top + 120, start : start + 200]

    page.keyboard.press("2")
    assert np.array_equal(single(), original)
    page.keyboard.press("Space")
    assert np.array_equal(single(), copy)
    page.keyboard.press("Space")
    assert np.array_equal(single(), original)
    page.keyboard.press("3")
    assert np.array_equal(single(), np.full((120, 200, 3), 5 * 8))
    page.keyboard.press("]")
    assert np.array_equal(single(), np.full((120, 200, 3), 5 * 16))
    assert "at most 5 of 255" in page.inner_text("#sides")
    page.keyboard.press("a")
    for label in ("#label-copy.on", "#label-original.on", "#label-copy.on"):
        page.wait_for_selector(label)


def test_zoom_and_pan_stay_in_step(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    path, original, _ = textured(tmp_path, 900, 700)
    page = open_page(serve(path), width=1000, height=600)
    await_pair(page, 0)
    page.keyboard.press("z")
    seen = [canvas(page)]
    left, _ = halves(seen[0])
    height, width = left.shape[:2]
    x, y = 900 // 2 - width // 2, 700 // 2 - height // 2
    assert any(
        np.array_equal(left, original[y + dy : y + dy + height, x + dx : x + dx + width])
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 700, box["y"] + 150)
    steps: list[Callable[[], Any]] = [
        lambda: page.mouse.wheel(0, -100),
        lambda: page.keyboard.press("Shift+ArrowDown"),
        lambda: page.keyboard.press("+"),
        lambda: (page.mouse.down(), page.mouse.move(box["x"] + 640, box["y"] + 200), page.mouse.up()),
    ]
    for step in steps:
        step()
        page.wait_for_timeout(50)
        seen.append(canvas(page))
        left, right = halves(seen[-1])
        assert np.abs(right - left - 5).max() <= 1  # between whole factors the browser interpolates
        assert not np.array_equal(seen[-1], seen[-2])
    page.keyboard.press("0")
    assert np.array_equal(*(pixels.shape for pixels in (canvas(page), seen[0])))
    assert page.inner_text("#zoom-text") != "100 %"


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1920, 1080)])
def test_nothing_jumps_or_falls_off(
    tmp_path: Path, serve: Serve, open_page: Open, width: int, height: int
) -> None:
    page = open_page(serve(write_pairs(tmp_path / "set", 9), blind=False), width=width, height=height)
    await_pair(page, 0)
    boxes = """() => [...document.querySelectorAll("#canvas, footer button, header button, header select")]
      .filter((part) => part.id !== "saved").map((part) => {
        const {x, y, width, height} = part.getBoundingClientRect();
        return [part.textContent, x, y, width, height];
      })"""
    before = page.evaluate(boxes)
    for _, x, y, wide, high in before:
        assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        width,
        height,
    ]
    for number, key in enumerate(("s", "d", "2", "3", " ", "1", "f", "x")):
        page.keyboard.press("Space" if key == " " else key)
        page.wait_for_selector('main[aria-busy="false"]')
        assert page.evaluate(boxes) == before, (number, key)


def test_blind_hides_and_seeing_shows(tmp_path: Path, serve: Serve, open_page: Open) -> None:
    path = write_pairs(tmp_path / "set", 3)
    blind, seeing = (open_page(serve(path, blind=hidden)) for hidden in (True, False))
    for page in (blind, seeing):
        await_pair(page, 0)
    assert blind.inner_text("#about") == "" and blind.is_hidden("#kind")
    assert "noise 2" in seeing.inner_text("#about")
    seeing.select_option("#kind", "jpeg")
    await_pair(seeing, 2)


def test_moving_jumping_reloading_and_an_unreadable_picture(
    tmp_path: Path, serve: Serve, open_page: Open
) -> None:
    path = write_pairs(tmp_path / "set", 5)
    (path.parent / "copies" / "4_blur.png").write_bytes(b"no picture")
    page = open_page(serve(path))
    await_pair(page, 0)
    page.keyboard.press("ArrowRight")
    await_pair(page, 1)
    page.keyboard.press("d")
    await_pair(page, 2)
    page.keyboard.press("ArrowLeft")
    await_pair(page, 1)
    assert "you answered: different" in page.inner_text("#about")
    page.keyboard.press("s")  # another answer replaces the first
    await_pair(page, 2)
    page.keyboard.press("j")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    page.wait_for_selector('#jump-problem:has-text("1 to 5")')
    page.fill("#jump-input", "5")
    page.keyboard.press("Enter")
    await_pair(page, 4)
    assert "not a readable image" in page.inner_text("#message")
    page.keyboard.press("s")
    assert "Not seen" in page.inner_text("#saved")
    page.keyboard.press("x")
    await_pair(page, 0)
    page.reload()
    await_pair(page, 0)
    for number, key in ((0, "s"), (2, "s"), (3, "g")):
        await_pair(page, number)
        page.keyboard.press(key)
    page.wait_for_selector("main:not([data-pair]) #message button")
    assert "Nothing more" in page.inner_text("#message")
    commands = [code.inner_text() for code in page.query_selector_all("#message code")]
    assert commands == next_commands(path) and len(commands) == 3
    page.click("#message button")
    await_pair(page, 3)
    assert [(row["group_id"][-1], row["verdict"]) for row in decisions(path)] == [
        ("1", "different"),
        ("1", "same"),
        ("4", "unusable"),
        ("0", "same"),
        ("2", "same"),
        ("3", "skip"),
    ]
