"""The table a run ends with: for a terminal through rich, as plain ASCII text elsewhere."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.console import Console
from rich.measure import Measurement

from qhk.errors import UserError
from qhk.evaluation.results import Moment, PerturbedRow, ResultRow, why_not_counted
from qhk.plain import plain_text
from qhk.tables import Table, Text
from qhk.tasks import find_form

ARROW, ASCII_ARROW = " → ", " -> "
WIDTH = 120


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its heading, a number per cell, and how that number is written.

    ``gain`` asks for the difference of the means. ``over_all`` columns average over every benchmark,
    left out or not: a failure rate must not lose the sets that failed.
    """

    heading: str
    value: Callable[[ResultRow], float]
    decimals: int
    gain: bool
    over_all: bool


def _metric(name: str) -> Callable[[ResultRow], float]:
    return lambda row: row.metrics[name].value


def failed_percent(row: ResultRow) -> float:
    """Return samples without a readable answer, in percent of all samples; NaN for none."""
    return 100 * row.samples_failed / row.samples if row.samples else math.nan


FAILED = Column(heading="unparsed %", value=failed_percent, decimals=1, gain=False, over_all=True)
DISTINCT = Column(heading="distinct", value=lambda row: row.distinct, decimals=0, gain=False, over_all=False)
ENTROPY = Column(heading="entropy", value=_metric("score_entropy"), decimals=2, gain=False, over_all=False)


def columns_of(form: str) -> tuple[Column, ...]:
    """Return what is shown of a benchmark whose task has this form."""
    task = find_form(form)
    shown = [
        Column(heading=heading, value=_metric(metric), decimals=3, gain=True, over_all=False)
        for metric, heading in task.metrics.items()
    ]
    return (FAILED, *shown, DISTINCT, *((ENTROPY,) if task.has_scores else ()))


@dataclass(frozen=True, kw_only=True)
class TableText:
    """The table as text: rows of ``body`` and ``means`` have one entry per heading, ``notes`` are lines."""

    title: str
    headings: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    means: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def results_tables(
    rows: Iterable[ResultRow], *, readout: str, moments: Sequence[Moment], min_parsed_fraction: float
) -> list[TableText]:
    """Return one table for each form of task among the rows of a read-out, and one that compares read-outs.

    See ``results_table`` and ``readouts_table``.
    """
    rows = list(rows)
    forms = dict.fromkeys(row.form for row in rows if row.readout == readout) or {"score": None}
    return [
        results_table(
            [row for row in rows if row.form == form],
            readout=readout,
            moments=moments,
            min_parsed_fraction=min_parsed_fraction,
        )
        for form in forms
    ] + readouts_table(rows, moments=moments, min_parsed_fraction=min_parsed_fraction)


def readouts_table(
    rows: Sequence[ResultRow], *, moments: Sequence[Moment], min_parsed_fraction: float
) -> list[TableText]:
    """Return a table with a line per read-out, of the last of ``moments`` and step; none for fewer than two.

    Read-outs of scores are compared by means over the benchmarks that count in all of them, so over the same
    images. Rows without a tie-broken correlation, of earlier versions, have no part in it.
    """
    rows = [row for row in rows if row.moment in moments]
    known = [row for row in rows if row.reliability.get("tie_broken_srcc") is not None]
    if not known:
        return []
    moment = max((row.moment for row in known), key=list(moments).index)
    found: dict[str, dict[str, ResultRow]] = {}
    for row in sorted((row for row in known if row.moment is moment), key=lambda row: row.step):
        found.setdefault(row.readout, {})[row.benchmark] = row
    counted = [
        name
        for name in next(iter(found.values()))
        if all(
            name in own and not why_not_counted(own[name], min_parsed_fraction=min_parsed_fraction)
            for own in found.values()
        )
    ]
    if len(found) < 2 or not counted:
        return []
    columns = {
        "unparsed %": (failed_percent, 1),
        "SRCC": (_metric("srcc"), 3),
        "ties broken": (_tie_broken, 3),
        "distinct": (DISTINCT.value, 0),
        "tokens": (lambda row: row.figures["tokens_per_image"], 1),
    }
    return [
        TableText(
            title=f"read-outs of the same images, {moment}: means over {len(counted)} benchmarks",
            headings=("read-out", *columns),
            body=tuple(
                (
                    readout,
                    *(
                        f"{math.fsum(value(own[name]) for name in counted) / len(counted):.{decimals}f}"
                        for value, decimals in columns.values()
                    ),
                )
                for readout, own in found.items()
            ),
            means=(),
            notes=("ties broken: SRCC with equal scores in random order; tokens: sampled for an image.",),
        )
    ]


def _tie_broken(row: ResultRow) -> float:
    value = row.reliability["tie_broken_srcc"]
    assert value is not None, "rows without it are left out"
    return value


def results_table(
    rows: Iterable[ResultRow], *, readout: str, moments: Sequence[Moment], min_parsed_fraction: float
) -> TableText:
    """Return the table of one read-out: a line per benchmark, the values of ``moments`` joined by arrows.

    All rows are of tasks of one form.

    Moments without rows are left out; of several steps of a moment the last counts. The mean is paired: a
    benchmark that cannot count in one moment is left out of all, so that a gain compares the same sets.
    Raises ``UserError`` where the read-out has no rows.
    """
    latest: dict[tuple[str, Moment], ResultRow] = {}
    for row in sorted(rows, key=lambda row: row.step):
        if row.readout == readout:
            latest[row.benchmark, row.moment] = row
    shown = [moment for moment in moments if any(key[1] is moment for key in latest)]
    if not shown:
        raise UserError(f"no results for read-out {readout!r} at {', '.join(moments)}: evaluate first")
    lines = {
        name: [latest[name, moment] for moment in shown if (name, moment) in latest]
        for name in dict.fromkeys(name for name, moment in latest if moment in shown)
    }
    columns = columns_of(next(iter(latest.values())).form)
    notes = _notes(lines, shown, min_parsed_fraction=min_parsed_fraction)
    return TableText(
        title=_title([row for cells in lines.values() for row in cells], readout=readout, shown=shown),
        headings=("benchmark", "n", *(column.heading for column in columns)),
        body=tuple(
            _line(name, cells, shown, columns, mark=notes.get(name, ("", ""))[0])
            for name, cells in lines.items()
        ),
        means=(
            *_mean_lines(lines, columns, left_out=notes, num_moments=len(shown)),
            *_unseen_lines(lines, columns, left_out=notes, num_moments=len(shown)),
        ),
        notes=(
            *(f"{mark} {name}: left out of the means: {text}" for name, (mark, text) in notes.items()),
            *_fit_notes(lines),
            _legend(columns),
        ),
    )


def perturbed_table(rows: Sequence[PerturbedRow]) -> TableText:
    """Return how perturbed copies were scored, of each benchmark and kind over all strengths."""
    whole = [row for row in rows if row.strength is None]
    curves = {
        (row.benchmark, row.kind): [
            one for one in rows if (one.benchmark, one.kind) == (row.benchmark, row.kind) and one.strength
        ]
        for row in whole
    }
    body = []
    for row in whole:
        drops = [f"{one.metrics['drop'].value:.2f}" for one in curves[row.benchmark, row.kind]]
        srcc = row.metrics.get("strength_srcc")
        body.append(
            (
                row.benchmark,
                row.kind,
                f"{row.n_pairs}/{row.n}",
                f"{row.metrics['above'].value:.3f}",
                f"{row.metrics['drop'].value:.3f}",
                " ".join(drops) or "-",
                "-" if srcc is None else f"{srcc.value:.3f}",
                f"{row.metrics['unchanged'].value:.3f}",
            )
        )
    moments = dict.fromkeys(f"{row.moment.value} (step {row.step})" for row in whole)
    headings = ("benchmark", "copies", "n", "above", "drop", "by strength", "SRCC", "unchanged")
    return TableText(
        title=f"perturbed copies, read-out {whole[0].readout}: {', '.join(moments)}",
        headings=headings,
        body=tuple(body),
        means=(),
        notes=(
            "n: copies with a readable answer, as their originals have; above: share of originals scored "
            "above their copy (0.5: chance); drop: mean of original less copy; SRCC: of strength and drop; "
            "unchanged: share of copies with the very score of the original.",
        ),
    )


def _legend(columns: Sequence[Column]) -> str:
    text = "unparsed %: samples without a readable answer (mean over all sets); "
    if ENTROPY in columns:
        return text + "distinct: different scores of the read-out; entropy: of single samples, in nats."
    return text + "accuracy: share of all images, every label right; distinct: different answers."


def _title(rows: Sequence[ResultRow], *, readout: str, shown: Sequence[Moment]) -> str:
    miniature = [row.miniature for row in rows]
    kind = "MINIATURE SYNTHETIC benchmarks" if all(miniature) else "benchmarks"
    if any(miniature) and not all(miniature):
        kind = "benchmarks, some MINIATURE SYNTHETIC"
    when = ARROW.join(
        f"{moment} (step {_steps(rows, moment)})" if moment is not Moment.BEFORE else moment
        for moment in shown
    )
    return f"{kind}, read-out {readout}: {when}"


def _steps(rows: Sequence[ResultRow], moment: Moment) -> str:
    steps = sorted({row.step for row in rows if row.moment is moment})
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]}-{steps[-1]}"


def _notes(
    lines: dict[str, list[ResultRow]], shown: Sequence[Moment], *, min_parsed_fraction: float
) -> dict[str, tuple[str, str]]:
    """Return mark and reason for every benchmark that is left out of the means."""
    reasons: dict[str, str] = {}
    for name, cells in lines.items():
        faults = {row.moment: why_not_counted(row, min_parsed_fraction=min_parsed_fraction) for row in cells}
        texts = [f"{moment}: {fault}" for moment, fault in faults.items() if fault]
        texts += [f"{moment}: not evaluated" for moment in shown if moment not in faults]
        if texts:
            reasons[name] = "; ".join(texts)
    return {name: (f"({number})", text) for number, (name, text) in enumerate(reasons.items(), start=1)}


def _fit_notes(lines: dict[str, list[ResultRow]]) -> list[str]:
    """Return a line for each reason why some values of plcc_fitted are not what they seem."""
    reasons: dict[str, list[str]] = {}
    for name, cells in lines.items():
        for row in cells:
            text = f"is the raw PLCC ({row.plcc_fallback})" if row.plcc_fallback else ""
            text = "flatters (the fitted curve is a step)" if row.plcc_step else text
            if text and "plcc" in row.metrics and not math.isnan(row.metrics["plcc"].value):
                reasons.setdefault(text, []).append(f"{name} {row.moment}")
    return [f"PLCC fitted {text}: {', '.join(cells)}" for text, cells in reasons.items()]


def _line(
    name: str, cells: Sequence[ResultRow], shown: Sequence[Moment], columns: Sequence[Column], *, mark: str
) -> tuple[str, ...]:
    by_moment = {row.moment: row for row in cells}
    numbers = [
        ARROW.join(
            f"{column.value(by_moment[moment]):.{column.decimals}f}" if moment in by_moment else "-"
            for moment in shown
        )
        for column in columns
    ]
    sizes = dict.fromkeys(str(row.n) for row in cells)
    return (f"{name} {mark}".strip(), ARROW.join(sizes), *numbers)


def _mean_lines(
    lines: dict[str, list[ResultRow]],
    columns: Sequence[Column],
    *,
    left_out: Collection[str],
    num_moments: int,
) -> tuple[tuple[str, ...], ...]:
    """Return the mean over the benchmarks that count and, for several moments, its gain."""
    counted = [cells for name, cells in lines.items() if name not in left_out]
    if not counted:
        return (("mean of 0", *[""] * (1 + len(columns))),)
    texts, gains = [], []
    for column in columns:
        means = []
        for position in range(num_moments):
            complete = [cells for cells in lines.values() if len(cells) == num_moments]
            rows = [cells[position] for cells in (complete if column.over_all else counted)]
            means.append(math.fsum(column.value(row) for row in rows) / len(rows))
        texts.append(ARROW.join(f"{mean:.{column.decimals}f}" for mean in means))
        gains.append(f"{means[-1] - means[0]:+.{column.decimals}f}" if column.gain else "")
    label = "mean" if len(counted) == len(lines) else f"mean of {len(counted)} of {len(lines)}"
    return ((label, "", *texts), ("gain", "", *gains)) if num_moments > 1 else ((label, "", *texts),)


def _unseen_lines(
    lines: dict[str, list[ResultRow]],
    columns: Sequence[Column],
    *,
    left_out: Collection[str],
    num_moments: int,
) -> tuple[tuple[str, ...], ...]:
    """Return the lines of the mean over the sets that training did not see, where it saw some of them."""
    unseen = {name: cells for name, cells in lines.items() if not any(row.seen for row in cells)}
    if not unseen or len(unseen) == len(lines):
        return ()
    found = _mean_lines(unseen, columns, left_out=left_out, num_moments=num_moments)
    return tuple((f"{line[0]}, unseen", *line[1:]) for line in found)


def as_rich(table: TableText) -> Table:
    """Return the table for a terminal."""
    drawn = Table(
        title=table.title, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left", pad_edge=False
    )
    for place, heading in enumerate(table.headings):
        drawn.add_column(heading, justify="right" if place else "left", no_wrap=place == 0)
    for line in table.body:
        drawn.add_row(*(Text(cell) for cell in line))
    if table.means:
        drawn.add_section()
    for line in table.means:
        drawn.add_row(*(Text(cell, style="bold") for cell in line))
    return drawn


def as_text(table: TableText) -> str:
    """Return the table as plain ASCII lines, for a log or a pipe; ends with a newline."""
    lines = [
        tuple(cell.replace(ARROW, ASCII_ARROW) for cell in line)
        for line in (table.headings, *table.body, *table.means)
    ]
    rows, means = lines[1 : 1 + len(table.body)], lines[1 + len(table.body) :]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.headings))]

    def written(line: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        return "  ".join([line[0].ljust(widths[0]), *cells[1:]]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    text = "\n".join(
        [
            table.title,
            written(lines[0]),
            rule,
            *map(written, rows),
            *([rule, *map(written, means)] if means else []),
            *(textwrap.fill(note, WIDTH, subsequent_indent="    ") for note in table.notes),
        ]
    )
    return plain_text(text.replace(ARROW, ASCII_ARROW)) + "\n"


def _natural_width(drawn: Table, console: Console) -> int:
    """Return the width of the unwrapped table (a console by itself reports at most its own width)."""
    return Measurement.get(console, console.options.update(width=10 * WIDTH), drawn).maximum


def print_table(table: TableText, *, file: TextIO) -> None:
    """Write the table to ``file``: through rich on a terminal at least as wide as the table, else plain."""
    console = Console(file=file, highlight=False)
    drawn = as_rich(table)
    if not file.isatty() or _natural_width(drawn, console) > console.width:
        file.write(as_text(table))
        return
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note, style="dim"))
