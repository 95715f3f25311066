"""Runs and comparisons for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from qhk.evaluation.results import Moment, why_not_counted
from qhk.report.compare import Cell, ComparisonTable
from qhk.report.runs import RunRecord, Runs, changed_keys, read_validations
from qhk.report.views import least_parsed, seen_as
from qhk.tables import Table, Text
from qhk.tracking.recorder import MetricRow
from qhk.tracking.validation import figures


def list_table(runs: Runs) -> Table:
    """Return one line per run: study, state, steps, mean SRCC before and after, and what went wrong.

    Beside them stands what the validation part said of the last and the best checkpoint, with their steps.
    """
    table = Table()
    headings = ("SRCC before", "SRCC after", "last on validation", "best on validation")
    for heading in ("run", "study", "state", "steps", *headings, "cause"):
        table.add_column(heading, overflow="fold")
    for record in runs.records:
        steps = f"{record.step}/{record.total_steps or '?'}" if record.step or record.total_steps else ""
        before, after = (_mean_srcc(record, moment) for moment in (Moment.BEFORE, Moment.AFTER))
        cause = record.cause or record.fault or record.warning
        validation = read_validations(record, runs.memory)
        last, best = (_validation(validation.get(name)) for name in ("last", "best"))
        cells = (record.label, record.study, record.state, steps, before, after, last, best, cause)
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _validation(row: MetricRow | None) -> str:
    """Return what the validation part said of a checkpoint, and at which step; empty for none."""
    if row is None:
        return ""
    name, value = next(iter(figures(row.metrics).items()))
    return f"{'' if name == 'SRCC' else f'{name} '}{value:.3f} ({row.step})"


def _mean_srcc(record: RunRecord, moment: Moment) -> str:
    """Return the mean over benchmarks that count, of the headline read-out; empty without any."""
    rows = [row for row in record.rows if seen_as(row.moment) is moment and "srcc" in row.metrics]
    headline = record.config.get("evaluation.headline")
    shown = headline if any(row.readout == headline for row in rows) else rows[0].readout if rows else ""
    ordered = sorted((row for row in rows if row.readout == shown), key=lambda row: row.step)
    latest = {row.benchmark: row for row in ordered}
    least = least_parsed(record)
    values = [
        row.metrics["srcc"].value
        for row in latest.values()
        if not why_not_counted(row, min_parsed_fraction=least)
    ]
    return f"{math.fsum(values) / len(values):.3f}" if values else ""


def comparison_table(table: ComparisonTable) -> Table:
    """Return methods x benchmarks: mean, spread, interval, p; best bold, second underlined."""
    view = table.view
    shown = Table(
        title=f"{view.metric}, {view.moment.value} training, {view.readout}", caption=_caption(table)
    )
    shown.add_column("method", overflow="fold")
    columns = (*view.benchmarks, "average", *(["unseen"] if table.unseen else []))
    for name in columns:
        shown.add_column(name, justify="right")
    for method in table.methods:
        cells = [table.cells[method][name] for name in view.benchmarks] + [table.average[method]]
        cells += [table.unseen[method]] if table.unseen else []
        against = table.against.get(method, {})
        texts = [
            _cell_text(cell, None if (found := against.get(name)) is None else found.p)
            for cell, name in zip(cells, columns, strict=True)
        ]
        shown.add_row(Text(f"{method} *" if method == table.reference else method), *texts)
    return shown


def field_table(table: ComparisonTable) -> Table:
    """Return what the field's own tests say of each method against the reference, by benchmark."""
    shown = Table(
        title=f"{table.view.metric} against {table.reference}, as the field tests it",
        caption="P: how often a run is better than one of the reference; Williams, Zou and F (RMSE) of mean "
        "answers over seeds, images taken for independent, nothing corrected",
    )
    for heading in ("method", "benchmark", "P", "difference", "Zou", "Williams p", "RMSE p"):
        shown.add_column(heading, justify="left" if heading in ("method", "benchmark") else "right")
    for method, columns in table.improvement.items():
        for name, chance in columns.items():
            found = table.field[method].get(name)
            cells = (
                ("", "", "", "")
                if found is None
                else (
                    f"{found.difference:+.3f}",
                    f"[{found.low:+.3f}, {found.high:+.3f}]",
                    f"{found.williams_p:.3f}",
                    f"{found.rmse_p:.3f}",
                )
            )
            shown.add_row(Text(method), Text(name), f"{chance:.2f}", *map(Text, cells))
    return shown


def _caption(table: ComparisonTable) -> str:
    left = [name for name in table.view.benchmarks if name not in table.averaged]
    text = f"mean ± std over seeds, 95% interval over references and seeds; p against {table.reference} (*)"
    out = [f"{run} on {name} ({why})" for name, runs in table.left_out.items() for run, why in runs.items()]
    text += f"; in no test: {', '.join(out)}" if out else ""
    text += ", Holm"
    unseen = ", ".join(table.unseen_sets)
    text += f"; unseen: the mean over {unseen}, which no method trained on" if unseen else ""
    return f"{text}; the average leaves out {', '.join(left)}" if left else text


def _cell_text(cell: Cell, p: float | None) -> Text:
    if math.isnan(cell.mean):
        return Text("\n".join(dict.fromkeys(cell.missing.values())) or "—", style="yellow")
    text = Text(f"{cell.mean:.3f}", style="bold" if cell.best else "underline" if cell.second else "")
    if not math.isnan(cell.std):
        text.append(f" ± {cell.std:.3f}", style="not bold not underline dim")
    if not math.isnan(cell.interval.low):
        text.append(f"\n[{cell.interval.low:.3f}, {cell.interval.high:.3f}]", style="not bold dim")
    if p is not None and not math.isnan(p):
        text.append(f"\np {p:.3f}" if p >= 0.001 else "\np < 0.001", style="not bold")
    if cell.missing:
        text.append(f"\nseeds missing: {len(cell.missing)}", style="yellow")
    return text


MOST_COLUMNS = 5
"""Methods of which each has a column of settings; of more, each has a line."""


def changes_table(runs: Runs, reference: str) -> Table:
    """Return the settings in which methods differ; of many methods, where each differs from the reference."""
    configs = [
        next((record.config for record in records if record.config), {}) for records in runs.methods.values()
    ]
    changed = changed_keys(configs)
    if len(configs) > MOST_COLUMNS:
        table = Table("method", f"its settings, where {reference} has others")
        place = list(runs.methods).index(reference)
        for own, method in enumerate(runs.methods):
            words = [
                f"{key}={'—' if values[own] is None else values[own]}"
                for key, values in changed.items()
                if values[own] != values[place]
            ]
            table.add_row(Text(method), Text("  ".join(words) if method != reference else "(the reference)"))
        return table
    table = Table(title="settings that differ")
    table.add_column("key", overflow="fold")
    for method in runs.methods:
        table.add_column(method, overflow="fold")
    for key, values in changed.items():
        table.add_row(Text(key), *_texts(values))
    return table


def _texts(values: Iterable[object]) -> list[Text]:
    return [Text("—" if value is None else str(value)) for value in values]
