"""Tables and text of rich, with names and answers as plain text: no markup, no control characters."""

from __future__ import annotations

from typing import Any

import rich.table
import rich.text

from qhk.plain import plain_text


class Text(rich.text.Text):
    """Rich's text, of plain text."""

    def __init__(self, text: str = "", style: Any = "", **options: Any) -> None:
        super().__init__(plain_text(text), style, **options)


class Table(rich.table.Table):
    """Rich's table, whose title, headings and cells are plain text."""

    def __init__(
        self, *headings: str, title: str | None = None, title_style: str = "table.title", **options: Any
    ) -> None:
        shown = None if title is None else Text(title, title_style)
        super().__init__(*headings, title=shown, **options)

    def add_column(self, header: Any = "", *more: Any, **options: Any) -> None:
        super().add_column(_plain(header), *more, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*map(_plain, cells), **options)


def _plain(cell: Any) -> Any:
    return Text(cell) if isinstance(cell, str) else cell
