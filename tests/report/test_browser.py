"""The report in a real Chromium, from disk: it asks for nothing, and keys reach everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from qhk.cli.main import main
from tests.report.builders import module_config, write_modules, write_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    study = write_modules(root, seeds=3)
    config = module_config(uncertainty=True, perception=True)
    write_run(root, "broken", 0, noise=0.5, config=config, state="failed", cause="loss is NaN")
    file = root / "report.html"
    assert main(["report", str(study), f"output={file}", "reference=grpo_baseline", "resamples=60"]) == 0
    return file


@pytest.fixture
def page(chromium: Any, report: Path) -> Iterator[Any]:
    """The page in a browser of its own; a script error or a request fails the test."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on(
        "request", lambda request: faults.append(request.url) if "report.html" not in request.url else None
    )
    page.goto(report.as_uri())
    page.wait_for_selector("#section-methods table")
    yield page
    assert faults == []
    context.close()


def methods(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("#section-methods tbody td:first-child").all_inner_texts()]


def await_methods(page: Any, expected: list[str]) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#section-methods tbody td:first-child")).to_have_text(expected)


def view(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).fragment)


def test_the_table_sorts_and_the_view_is_in_the_address(page: Any) -> None:
    page.click("#sort-average")
    assert methods(page)[0] in ("full", "without_perception") and methods(page)[-1] == "broken"
    page.click("#sort-average")
    assert methods(page)[0] == "grpo_baseline"
    assert view(page)["sort"] == ["average:up"]
    page.select_option("#metric", "plcc")
    assert "PLCC" in page.inner_text("#section-methods p") and view(page)["metric"] == ["plcc"]
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert methods(page)[0] == "grpo_baseline" and page.input_value("#metric") == "plcc"


def test_methods_are_searched_by_name_and_by_setting_and_chosen(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("without")
    await_methods(page, ["without_perception", "without_uncertainty"])
    page.fill("#search", "uncertainty.form=none")
    await_methods(page, ["grpo_baseline", "without_uncertainty"])
    page.fill("#search", "")
    await_methods(page, ["broken", "full", "grpo_baseline", "without_perception", "without_uncertainty"])
    page.click("#filter summary")
    page.uncheck("#choose-full")
    assert "full" not in methods(page) and view(page)["hidden"] == ["full"]


def test_a_failed_run_is_told_with_its_log(page: Any) -> None:
    assert "loss is NaN" in page.inner_text("#section-methods tbody tr:first-child")
    page.click("#section-failures summary")
    assert "RuntimeError: loss is NaN" in page.inner_text("#section-failures pre")


def test_an_image_opens_by_keys_and_closes(page: Any) -> None:
    page.locator("#section-predictions .point").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#card[open]")
    text = page.inner_text("#card")
    assert "Mean opinion" in text and "samples:" in text and "<think>" in text
    assert "image" in view(page)
    page.keyboard.press("Escape")
    page.wait_for_selector("#card:not([open])", state="attached")
    assert "image" not in view(page)


def test_curves_modules_and_published_results_are_drawn(page: Any) -> None:
    assert page.locator("#section-curves canvas").count() >= 1
    assert page.locator("#section-modules .finding.shown").count() == 1
    assert page.locator("#section-answer figure:first-child .forest .dot").count() == 3
    assert page.locator("#section-published details").count() >= 1


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_print_have_their_colours(page: Any) -> None:
    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    page.emulate_media(color_scheme="dark")
    assert paper() != light
    page.emulate_media(media="print", color_scheme="light")
    assert page.is_hidden("#controls")
