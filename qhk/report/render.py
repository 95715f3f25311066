"""A report as files: one HTML page, the tables as CSV, and the main table as LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

PAGE = files("qhk.report") / "page"


def html(content: Mapping[str, Any], *, connect: str = "'none'") -> str:
    """Return the page with everything in it; ``connect`` says whom it may ask (nobody, as a file)."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = {
        name: (PAGE / name).read_text(encoding="utf-8")
        for name in ("page.html.j2", "page.css", "page.js", "uPlot.min.css", "uPlot.iife.min.js")
    }
    # In a script element only "</" and "<!--" would end the data; as \u003c they are the same JSON.
    data = json.dumps(content, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    return environment.from_string(text["page.html.j2"]).render(
        title=content["title"],
        version=content["version"],
        connect=Markup(connect),
        styles=Markup(text["uPlot.min.css"] + text["page.css"]),
        plot=Markup(text["uPlot.iife.min.js"]),
        script=Markup(text["page.js"]),
        data=Markup(data),
    )


HEADING = (
    "metric", "moment", "readout", "method", "benchmark",
    "mean", "std", "low", "high", "seeds", "missing", "best", "second",
)  # fmt: skip


def as_csv(tables: Sequence[Mapping[str, Any]]) -> str:
    """Return all tables in long form: one row per metric, moment, read-out, method and benchmark."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*HEADING])
    for table in tables:
        view = table["view"]
        for method, cells in table["rows"].items():
            for benchmark, cell in cells.items():
                numbers = ["" if cell[key] is None else cell[key] for key in ("mean", "std", "low", "high")]
                writer.writerow(
                    [view["metric"], view["moment"], view["readout"], method, benchmark, *numbers,
                     len(cell["values"]), len(cell["missing"]), int(cell["best"]), int(cell["second"])]
                )  # fmt: skip
    return file.getvalue()


def as_latex(table: Mapping[str, Any]) -> str:
    r"""Return one table for a paper (booktabs): mean and spread, best bold, second underlined."""
    unseen = ["unseen"] if table["unseen"] else []
    view, columns = table["view"], [*table["benchmarks"], "average", *unseen]
    lines = [
        f"% {view['metric']}, {view['moment']} training, {view['readout']}; mean and spread over seeds",
        rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
        r"\toprule",
        " & ".join(["Method", *(latex_text(name) for name in columns)]) + r" \\",
        r"\midrule",
    ]
    for method, cells in table["rows"].items():
        lines.append(
            " & ".join([latex_text(method), *(_latex_cell(cells[name]) for name in columns)]) + r" \\"
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_cell(cell: Mapping[str, Any]) -> str:
    if cell["mean"] is None:
        return "--"
    text = f"{cell['mean']:.3f}"
    if cell["best"]:
        text = rf"\textbf{{{text}}}"
    elif cell["second"]:
        text = rf"\underline{{{text}}}"
    return text if cell["std"] is None else rf"{text} {{\scriptsize $\pm$ {cell['std']:.3f}}}"


_LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Return a text with LaTeX's own characters escaped."""
    return "".join(_LATEX.get(char, char) for char in text)
