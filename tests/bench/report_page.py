"""Seconds to make a report, its size, and seconds until a browser has drawn it, on SYNTHETIC runs.

    python -m tests.bench.report_page [METHODS [SEEDS]]

By default 40 methods of 5 seeds on eight benchmarks of 300 images (60 references). Nothing is asserted.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qhk.report.content import ReportOptions
from qhk.report.files import write_report
from tests.report.builders import module_config, write_run

BENCHMARKS = ("koniq", "spaq", "kadid", "pipal", "live_wild", "agiqa_3k", "csiq", "tid2013")


def main(num_methods: int = 40, num_seeds: int = 5) -> None:
    """Make the runs, the report, and open it; print what each took."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for method in range(num_methods):
            config = module_config(uncertainty=method % 2 == 0, perception=method % 3 == 0)
            for seed in range(num_seeds):
                write_run(
                    root, f"method{method:02d}", seed, noise=0.4 + 0.01 * method, benchmarks=BENCHMARKS,
                    config={**config, "optimizer": {"lr": method}}, references=60, num_resamples=0,
                )  # fmt: skip
        options = ReportOptions(
            title="bench", reference=None, num_resamples=400, confidence=0.95, thumbnails=False
        )
        page = root / "report.html"
        started = time.perf_counter()
        write_report([root / "study"], options, page, progress=lambda what, done, of: None)
        seconds = time.perf_counter() - started
        print(f"{num_methods * num_seeds} runs: made in {seconds:.1f} s, {page.stat().st_size / 1e6:.2f} MB")
        _open(page)


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Give a Chromium, None where this machine has none."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


def _open(page: Path) -> None:
    with opened_browser() as browser:
        if browser is None:
            print("not opened: no chromium on this machine")
            return
        tab = browser.new_page()
        started = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("#section-provenance")
        drawn = time.perf_counter() - started
        started = time.perf_counter()
        tab.click("#sort-average")
        tab.evaluate("new Promise((done) => requestAnimationFrame(() => done(1)))")
        print(f"drawn after {drawn:.2f} s; sorted anew in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
