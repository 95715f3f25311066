"""The report in a real Chromium, from disk: it asks for nothing, and keys reach everything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from qhk.cli.main import main
from qhk.tracking.code_store import store_files
from tests.report.builders import module_config, write_modules, write_run

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    study = write_modules(root, seeds=3)
    config = module_config(uncertainty=True, perception=True)
    write_run(root, "broken", 0, noise=0.5, config=config, state="failed", cause="loss is NaN")
    for seed in range(3):
        control = write_run(root, "supervised_control", seed, noise=0.6, config=config)
        measured = control / "results.json"
        measured.write_text(measured.read_text().replace('"after"', '"control"'))
    change_code(study)
    lose_answers(study / "full" / "seed0")
    file = root / "report.html"
    assert main(["report", str(study), f"output={file}", "reference=grpo_baseline", "resamples=60"]) == 0
    return file


def change_code(study: Path) -> None:
    """Let one run be of another code, of which there is a copy, and one of a code without a copy."""
    codes = {"without_perception": "c" * 64}
    for method in ("full", "grpo_baseline"):
        codes[method] = store_files(study.parent, {"qhk/loss.py": f"beta = '{method}'\n".encode()})
    for method, code in codes.items():
        for run in (study / method).iterdir():
            if method == "full" or run.name == "seed0":
                content = {
                    "code_digest": code, "data_fingerprints": {}, "packages": {}, "python": "3",
                    "hardware": {}, "accelerators": [], "threads": 1,
                }  # fmt: skip
                (run / "provenance.json").write_text(json.dumps(content))
    odd = study / "without_uncertainty" / "seed0" / "config.yaml"
    for config in study.glob("*/*/config.yaml"):
        entry = {"koniq": {"x": "y" * 80 if config == odd else "short"}}
        config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "dataset": entry}))


def lose_answers(run: Path) -> None:
    """Let a run have read 45 of 60 images of one benchmark; it has a read-out of after training only."""
    content = json.loads((run / "results.json").read_text())
    for row in content["rows"]:
        if row["benchmark"] == "kadid" and row["moment"] == "after":
            row["n_parsed"], row["samples_failed"] = 45, 60
    content["rows"] += [{**row, "readout": "single"} for row in content["rows"] if row["moment"] == "after"]
    (run / "results.json").write_text(json.dumps(content))


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
    await_methods(
        page,
        [
            "broken",
            "full",
            "grpo_baseline",
            "supervised_control",
            "without_perception",
            "without_uncertainty",
        ],
    )
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


def test_the_fields_tests_are_folded_beside_the_differences(page: Any) -> None:
    page.click("text=As the field tests it")
    text = page.inner_text("#section-differences details table")
    assert re.search(r"full\s+P [01]\.\d\d\s+Williams p (< )?0\.\d+\s+\[.+\]\s+RMSE p ", text)
    assert len(re.findall(r"P [01]\.\d\d", text)) > len(re.findall("Williams", text)), "averages have P alone"


def test_curves_modules_and_published_results_are_drawn(page: Any) -> None:
    assert page.locator("#section-curves canvas").count() >= 1
    assert page.locator("#section-modules .finding.shown").count() == 1
    assert page.locator("#section-answer figure:first-child .forest .dot").count() == 3
    assert page.locator("#section-published details").count() >= 1


def test_the_first_sentence_is_the_answer_of_the_view(page: Any) -> None:
    assert (
        page.inner_text("#section-answer .lead")
        == "Uncertainty (linear) helps; perception (kl) shows no effect."
    )
    numbers = page.inner_text("#section-answer .lead + p")
    assert re.search(
        r"Mean SRCC over 2 benchmarks and 3 seeds: .*uncertainty \(linear\) \+0\.\d{3} \[", numbers
    )
    page.select_option("#metric", "mae")
    assert "too few runs" in page.inner_text("#section-answer .lead")  # this metric has no test


def test_the_supervised_control_stands_among_the_methods(page: Any) -> None:
    assert "supervised_control" in methods(page)
    control = page.locator("#section-methods tbody tr", has_text="supervised_control")
    assert "\u00b1" in control.inner_text() and "[" in control.inner_text()
    assert "supervised_control" in page.locator("#section-answer .forest").last.inner_text()


def test_what_is_missing_or_unread_is_in_its_cell(page: Any) -> None:
    cells = page.locator("#section-methods tbody tr", has_text="broken").locator("td.absent")
    assert cells.count() == 3 and "failed: loss is NaN" in cells.first.inner_text()
    full = page.locator("#section-methods tbody tr").nth(1).locator("td")
    assert "unread" not in full.nth(1).inner_text() and "8.3% of images unread" in full.nth(2).inner_text()
    assert "165 of 180 images have a readable answer" in full.nth(2).get_attribute("title")


def test_settings_and_code_of_chosen_methods_that_differ(page: Any) -> None:
    shown = page.inner_text("#section-settings")
    assert "without_uncertainty differ in more than their seed" in shown and "dataset.koniq.x" in shown
    folded = page.locator("#section-settings details")
    assert (
        "dataset: 1 key" in folded.locator("summary").inner_text()
        and not folded.locator("table").is_visible()
    )
    assert "dataset." not in page.inner_text("#section-settings > .scroll")
    cut = folded.locator("td[title]").last
    assert cut.get_attribute("title") == "y" * 80 and len(cut.text_content()) == 40
    page.fill("#search", "uncertainty.form=linear")
    await_methods(page, ["broken", "full", "supervised_control", "without_perception"])
    assert "uncertainty.form" not in page.inner_text("#section-settings")
    code = page.locator("#section-code")
    code.locator("summary").click()
    assert "-beta = 'full'" in code.inner_text() and "+beta = 'grpo_baseline'" in code.inner_text()
    assert f"No whole copy of {'c' * 12} is left" in code.inner_text()


def test_the_shown_table_is_copied_for_a_paper(page: Any, report: Path) -> None:
    """Unfiltered it is what the command writes; filtered it has the shown methods only."""
    written = report.with_suffix(".tex").read_text().splitlines()
    assert page.evaluate("asLatex()").splitlines() == written
    page.fill("#search", "full")
    await_methods(page, ["full"])
    lines = page.evaluate("asCsv()").splitlines()
    assert lines[0] == "method,benchmark,mean,std,low,high,seeds,missing"
    assert [line.split(",")[:2] for line in lines[1:]] == [["full", n] for n in ("koniq", "kadid", "average")]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as CSV").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").splitlines() == lines


def test_keys_sort_and_what_was_opened_stays_open(page: Any) -> None:
    first = page.locator("#section-reliability details").first
    assert first.get_attribute("open") is not None
    first.locator("summary").first.click()
    assert first.get_attribute("open") is None
    closed = page.locator("#section-reliability details:not([open])").count()
    page.focus("#sort-kadid")
    page.keyboard.press("Enter")
    assert view(page)["sort"] == ["kadid:down"]
    assert page.evaluate("document.activeElement.id") == "sort-kadid"
    assert page.locator("#section-reliability details:not([open])").count() == closed


def test_a_read_out_that_the_moment_lacks_brings_the_nearest_view(page: Any) -> None:
    page.evaluate("location.hash = 'metric=krcc&moment=before&readout=gone'")
    page.wait_for_function("document.getElementById('moment').value === 'before'")
    assert page.input_value("#metric") == "krcc" and page.input_value("#readout") == "mean4"
    page.select_option("#readout", "single")
    assert page.input_value("#moment") == "after"
    page.select_option("#moment", "before")
    assert page.input_value("#moment") == "before" and page.input_value("#readout") == "mean4"


@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (1200, "screen"), (1047, "print")])
def test_nothing_is_wider_than_the_window(page: Any, width: int, media: Any) -> None:
    """1047 pixels are A4 on its side; a page is laid out for the screen before it is printed."""
    page.emulate_media(media=media)
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
