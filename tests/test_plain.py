from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from rich.console import Console

from qhk.cli.process import report
from qhk.errors import UserError
from qhk.plain import counted, plain_text, print, show_value
from qhk.tables import Table, Text
from qhk.training.display import ConsoleDisplay

NAME = "[/x][link=file:///etc]a\x1b]8;;evil\x07\x9b31m\r\u202egpj.\udcff"
SHOWN = r"[/x][link=file:///etc]a\x1b]8;;evil\x07\x9b31m\r\u202egpj.\udcff"


def test_what_has_no_glyph_is_an_escape() -> None:
    assert plain_text(NAME) == SHOWN
    assert plain_text("a\tb\nc") == "a\tb\nc"
    assert plain_text("5 \u00b5m \u2013 \u753b \U0001f600") == "5 \u00b5m \u2013 \u753b \U0001f600"
    assert plain_text("\x7f\x00\u2028\u2066") == r"\x7f\x00\u2028\u2066"


def test_lines_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        raise UserError(f"{NAME}: no such image")

    def fail() -> int:
        raise RuntimeError(NAME)

    print(NAME, 1, file=sys.stderr)
    ConsoleDisplay().line(NAME)
    assert (report(refuse), report(fail)) == (2, 1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"{SHOWN} 1", SHOWN]
    assert SHOWN.replace(r"\r", " ") in lines[2].replace(r"\r", " ")
    assert lines[-1] == f"RuntimeError: {SHOWN}"


def test_tables() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system=None, width=400)
    table = Table(NAME, title=NAME)
    table.add_column(NAME)
    table.add_row(NAME, Text(NAME, style="bold"))
    console.print(table)
    assert file.getvalue().count(SHOWN) == 5
    assert "\x1b]" not in file.getvalue() and "\r" not in file.getvalue()


def test_values_in_messages() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    shown = [
        show_value(value) for value in (None, True, "a\nb", np.float64(3.5), np.array([[1], [2]]), Odd())
    ]
    assert shown == ["null", "true", r"'a\nb'", "3.5", "array([[1], [2]])", "a Odd"]
    assert show_value(None, none="missing") == "missing"
    assert show_value(10**5000) == "a int" and show_value(nested) == "a list"
    assert show_value("x" * 100) == "'" + "x" * 56 + "..."
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
