"""The README's glossary is the declared table of metrics."""

from __future__ import annotations

from pathlib import Path

from qhk.tracking.names import glossary_markdown

README = Path(__file__).parents[2] / "README.md"


def test_readme_glossary_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    start, end = "<!-- glossary: from qhk/tracking/names.py -->\n\n", "\n<!-- end of glossary -->"
    inside = text[text.index(start) + len(start) : text.index(end)]
    assert inside == glossary_markdown(), "write glossary_markdown() between the README's glossary marks"
