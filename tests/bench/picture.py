"""A picture of the upper part of a report, for the README.

    python -m tests.bench.picture REPORT.html PICTURE.png [WIDTH [HEIGHT]]

WIDTH and HEIGHT are pixels of the page. Needs a Chromium.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.bench.report_page import opened_browser


def main(page: str, picture: str, width: int = 1240, height: int = 1000) -> None:
    """Write the picture, and print its size."""
    with opened_browser() as browser:
        if browser is None:
            sys.exit("no picture: no chromium on this machine")
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        tab.goto(Path(page).absolute().as_uri())
        tab.wait_for_selector("#section-methods table")
        # What is clicked is of no use in a picture.
        tab.add_style_tag(content="nav, #controls, .actions { display: none !important; }")
        shot = tab.screenshot()
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    image.save(picture, optimize=True)
    print(f"{picture}: {image.width} x {image.height}, {Path(picture).stat().st_size / 1e3:.0f} KB")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]))
