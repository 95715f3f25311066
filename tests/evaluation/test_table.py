"""The printed table: cells, paired means, notes, width."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from qhk.evaluation import table
from qhk.evaluation.results import Moment, ResultRow
from qhk.evaluation.table import TableText
from tests.evaluation.builders import NAN, row

BOTH = (Moment.BEFORE, Moment.AFTER)


def built(rows: list[ResultRow], moments: tuple[Moment, ...] = BOTH) -> TableText:
    return table.results_table(rows, readout="mean8", moments=moments, min_parsed_fraction=0.95)


def pair(name: str, before: float, after: float) -> list[ResultRow]:
    return [
        row(name, srcc=before, samples_failed=8),
        row(name, moment=Moment.AFTER, step=120, srcc=after, distinct=55),
    ]


def test_cells_mean_and_gain() -> None:
    text = built([*pair("koniq", 0.5, 0.7), *pair("spaq", 0.6, 0.7)])
    # 8 of 800 samples failed before
    assert text.body[0] == (
        "koniq", "100", "1.0 → 0.0", "0.500 → 0.700", "0.700 → 0.700", "0.710 → 0.710",
        "40 → 55", "2.00 → 2.00",
    )  # fmt: skip
    assert text.means[0][:4] == ("mean", "", "1.0 → 0.0", "0.550 → 0.700")
    assert text.means[1][:4] == ("gain", "", "", "+0.150")
    assert "MINIATURE SYNTHETIC" in text.title and "step 120" in text.title


def test_sets_that_training_did_not_see_have_a_mean_of_their_own() -> None:
    rows = [*pair("koniq", 0.5, 0.7), *pair("spaq", 0.6, 0.8), *pair("kadid", 0.1, 0.3)]
    seen = [replace(row, seen=row.benchmark == "koniq") for row in rows]
    text = built(seen)
    assert [line[0] for line in text.means] == ["mean", "gain", "mean, unseen", "gain, unseen"]
    assert text.means[2][3] == "0.350 → 0.550" and text.means[3][3] == "+0.200"
    for every in (True, False, None):
        assert len(built([replace(row, seen=every) for row in rows]).means) == 2


def test_title_of_real_and_mixed_sets() -> None:
    assert "MINIATURE" not in built([row(miniature=False)]).title
    assert "some MINIATURE SYNTHETIC" in built([row(miniature=False), row("spaq")]).title


def test_mean_is_paired_but_failures_count_everywhere() -> None:
    rows = [*pair("koniq", 0.5, 0.7), *pair("spaq", 0.9, 0.1)]
    rows[3] = row("spaq", moment=Moment.AFTER, step=120, srcc=0.1, n_parsed=50, samples_failed=400)
    text = built(rows)
    assert text.means[0][:4] == ("mean of 1 of 2", "", "1.0 → 25.0", "0.500 → 0.700")
    assert text.body[1][0] == "spaq (1)"
    assert text.notes[0] == "(1) spaq: left out of the means: after: 50 of 100 images parsed (under 95%)"


def test_constant_prediction_is_shown_as_nan() -> None:
    text = built([row(srcc=NAN, plcc=NAN)])
    assert text.body[0][3:5] == ("nan", "nan")
    assert text.means == (("mean of 0", "", "", "", "", "", "", ""),)


def test_fallback_of_the_fit_is_noted() -> None:
    text = built([row(plcc_fallback="no convergence"), row("spaq", plcc_fallback="no convergence")])
    assert "PLCC fitted is the raw PLCC (no convergence): koniq before, spaq before" in text.notes


def test_a_fit_that_is_a_step_is_noted() -> None:
    text = built([row(), row("spaq", plcc_step=True)])
    assert "PLCC fitted flatters (the fitted curve is a step): spaq before" in text.notes


def test_last_step_of_a_moment_other_readouts_left_out() -> None:
    rows = [
        row(moment=Moment.AFTER, step=120, srcc=0.8),
        row(moment=Moment.AFTER, step=60, srcc=0.1),
        row(moment=Moment.AFTER, step=200, srcc=0.2, readout="greedy"),
    ]
    assert built(rows).body[0][3] == "0.800"


def test_control_stands_where_asked() -> None:
    rows = [row(srcc=0.5), row(moment=Moment.CONTROL, step=9, srcc=0.6)]
    assert built(rows, (Moment.BEFORE, Moment.CONTROL)).body[0][3] == "0.500 → 0.600"
    assert built(rows).body[0][3] == "0.500"


def test_benchmark_missing_at_a_moment_is_marked() -> None:
    text = built([*pair("koniq", 0.5, 0.7), row("spaq", moment=Moment.AFTER, step=120, srcc=0.3)])
    assert text.body[1][3] == "- → 0.300"
    assert "before: not evaluated" in text.notes[0]
    assert text.means[0][0] == "mean of 1 of 2"


def test_unknown_readout_is_refused() -> None:
    with pytest.raises(ValueError, match="'mean8' at before, after: evaluate first"):
        built([row(readout="greedy")])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def full_size() -> TableText:
    names = ["koniq", "spaq", "kadid", "pipal", "live_wild", "agiqa_3k", "csiq", "tid2013"]
    rows = [item for name in names for item in pair(f"miniature_{name}", 0.5, 0.7)]
    return built([*rows[:-1], row("miniature_tid2013", moment=Moment.AFTER, step=120, n_parsed=1)])


def test_plain_text_is_ascii_and_fits_120_columns() -> None:
    file = io.StringIO()
    table.print_table(full_size(), file=file)
    text = file.getvalue()
    assert text.isascii() and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120
    assert "0.500 -> 0.700" in text and text.endswith("\n")


def test_terminal_gets_the_drawn_table_unless_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = {}
    for columns in ("120", "70"):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("TERM", "xterm")
        outputs[columns] = Terminal()
        table.print_table(full_size(), file=outputs[columns])
    assert "─" in outputs["120"].getvalue() and "0.500 → 0.700" in outputs["120"].getvalue()
    assert "─" not in outputs["70"].getvalue() and "0.500 -> 0.700" in outputs["70"].getvalue()


def test_readouts_are_compared_over_the_benchmarks_that_count_in_all_of_them() -> None:
    def cell(name: str, readout: str, srcc: float, broken: float, parsed: int = 100) -> ResultRow:
        found = row(name, moment=Moment.AFTER, step=3, readout=readout, srcc=srcc, n_parsed=parsed)
        return replace(found, reliability={"tie_broken_srcc": broken}, figures={"tokens_per_image": 9.0})

    rows = [
        cell("koniq", "mean8", 0.7, 0.69),
        cell("spaq", "mean8", 0.5, 0.48),
        cell("csiq", "mean8", 0.1, 0.1),
        cell("koniq", "greedy", 0.6, 0.4),
        cell("spaq", "greedy", 0.4, 0.3),
        cell("csiq", "greedy", 0.9, 0.9, parsed=50),
    ]
    one, compared = table.results_tables(
        [row(), *rows], readout="mean8", moments=BOTH, min_parsed_fraction=0.95
    )
    assert one.headings[0] == "benchmark"
    assert compared.headings == ("read-out", "unparsed %", "SRCC", "ties broken", "distinct", "tokens")
    assert compared.body == (
        ("mean8", "0.0", "0.600", "0.585", "40", "9.0"),
        ("greedy", "0.0", "0.500", "0.350", "40", "9.0"),
    )
    assert "after: means over 2 benchmarks" in compared.title
    assert table.as_text(compared).count("---\n") == 1
    for alone in (rows[:3], [row(), row(readout="greedy")]):
        assert not table.readouts_table(alone, moments=BOTH, min_parsed_fraction=0.95)
