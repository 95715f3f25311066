"""The table of names: one declaration each, patterns, refusals, glossary."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.results import Moment, scalar_metrics
from qhk.tasks import find_form
from qhk.tracking import names
from qhk.tracking.names import glossary_markdown


def test_every_name_is_declared_once_with_a_meaning() -> None:
    declared = [metric.name for metric in names.METRICS]
    assert len(set(declared)) == len(declared)
    assert all(metric.meaning for metric in names.METRICS)
    assert all(re.fullmatch(r"[a-z0-9_{}]+(/[a-z0-9_{}]+)+", name) for name in declared)


def test_exact_names_come_before_patterns() -> None:
    assert names.find_metric("train/reward/total/mean").name == "train/reward/total/mean"
    assert names.find_metric("train/reward/format/mean").name == "train/reward/{term}/mean"
    assert names.find_metric("eval/mean/plcc").name == "eval/mean/plcc"
    assert names.find_metric("eval/miniature_koniq/plcc").name == "eval/{benchmark}/plcc"


@pytest.mark.parametrize("name", ["eval/a/b/plcc", "eval//plcc", "train/reward/a/b/mean", "eval/koniq/acc"])
def test_pattern_stands_for_one_component(name: str) -> None:
    with pytest.raises(ValueError, match="is not declared"):
        names.find_metric(name)


def test_undeclared_name_gets_its_nearest() -> None:
    with pytest.raises(ValueError, match="'train/loss/totl' is not declared.*nearest: train/loss/total"):
        names.find_metric("train/loss/totl")


def measured(form: str) -> set[str]:
    row = measure_predictions(
        [],
        task=find_form(form),
        benchmark="koniq",
        split="test",
        protocol="",
        miniature=False,
        step=0,
        moment=Moment.AFTER,
        readout="greedy",
        num_resamples=0,
        confidence=0.95,
        seed=0,
    )
    return set(scalar_metrics(row))


def test_every_measured_quantity_is_declared() -> None:
    forms = ("score", "degradation", "comparison")
    assert set[str]().union(*map(measured, forms)) == set(names.READOUT_QUANTITIES)


def test_glossary_holds_every_name_or_its_parts() -> None:
    glossary = names.glossary_markdown()
    for metric in (*names.TRAIN, *names.COLD_START, *names.COST):
        assert f"| `{metric.name}` | {metric.reduction} | {metric.meaning} |" in glossary
    for part in (*names.READOUT_QUANTITIES, *(f"{prefix}/" for prefix in names.READOUT_PREFIXES)):
        assert f"| `{part}` |" in glossary


README = Path(__file__).parents[2] / "outputs" / "README.md"


def test_glossary_of_the_outputs_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    start, end = "<!-- glossary: from qhk/tracking/names.py -->\n\n", "\n<!-- end of glossary -->"
    inside = text[text.index(start) + len(start) : text.index(end)]
    assert inside == glossary_markdown(), "write glossary_markdown() between the marks in outputs/README.md"
