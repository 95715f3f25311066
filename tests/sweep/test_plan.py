"""Every sweep file, what its cells change, and what the command line does to all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qhk.cli.job import prepare
from qhk.config.catalogue import Catalogue
from qhk.errors import UserError
from qhk.settings.identity import run_id
from qhk.settings.root import Settings
from qhk.sweep.plan import plan_multirun, plan_sweep, refuse_changed
from tests.conftest import Qhk, repository_catalogue
from tests.sweep.builders import MakeSweep, planned

CATALOGUE = repository_catalogue()
SEARCHES = ("random", "bayesian")
NAMED = [name for name in CATALOGUE.options["sweep"] if name not in SEARCHES]
SCALES = {
    "data_mixture": ["scale=full"],  # its sets have no miniature form of the same name
    "photographs": [
        "scale=photographs",
        "dataset.folder.root=photographs",
        "dataset.folder.options.score_column=mos",
        "dataset.folder.bounds=[0,1]",
        "dataset.folder.higher_is_better=true",
    ],
}
"""What a sweep is meant for, where that is not the miniature scale."""


@pytest.mark.parametrize("sweep", NAMED)
def test_every_cell_composes_and_differs(sweep: str, catalogue: Catalogue) -> None:
    words = SCALES.get(sweep, ["scale=miniature"])
    plan = plan_sweep([f"sweep={sweep}", "experiment=q_hawkeye", *words, "seed=0"], catalogue)
    ids = {run.cell: run.run_id for run in plan.runs}
    assert len(ids) == len(plan.runs) >= 4
    assert len(set(ids.values())) == len(ids), "cells of one sweep compute different things"
    assert all(run.settings.study == plan.name and run.settings.name == run.cell for run in plan.runs)


@pytest.mark.parametrize("sweep", CATALOGUE.options["sweep"])
def test_every_sweep_says_what_it_claims(sweep: str, catalogue: Catalogue) -> None:
    file = next(file for file in catalogue.files if (file.group, file.option) == ("sweep", sweep))
    lines = file.path.read_text().splitlines()
    assert lines[0] == "# @package _global_" and lines[1].startswith("# Claim: ")
    cells = [line for line in lines if line.startswith("    ")]
    assert len(lines) - len(cells) <= 16, "a cell takes a line"


def test_modules_leave_out_one_module_each(catalogue: Catalogue) -> None:
    plan = plan_sweep(["sweep=modules", "seed=0,1"], catalogue)
    assert plan.seeds == (0, 1)
    cells = {run.cell: run.settings for run in plan.runs if run.seed == 0}
    full = cells["full"]
    assert cells["without_uncertainty"] == full.model_copy(
        update={"uncertainty": cells["grpo_baseline"].uncertainty, "name": "without_uncertainty"}
    )
    assert cells["without_perception"].perception.form == "none"
    assert cells["without_original_entropy"].perception == full.perception.model_copy(
        update={"eta_original": 0.0}
    )
    assert cells["without_degraded_entropy"].perception == full.perception.model_copy(
        update={"eta_degraded": 0.0}
    )
    baseline = prepare("train", ["experiment=grpo_baseline", "scale=miniature"], catalogue).settings
    modules = plan_sweep(["sweep=modules", "experiment=q_hawkeye", "scale=miniature", "seed=0"], catalogue)
    assert modules.runs[-1].run_id == run_id(baseline)


def test_the_command_line_reaches_every_cell_and_gives_way_to_what_a_cell_decides(
    catalogue: Catalogue,
) -> None:
    words = ["sweep=modules", "optimizer.lr=1e-4", "uncertainty.alpha=0.5", "study=mine", "seed=3"]
    plan = plan_sweep(words, catalogue)
    assert plan.name == "mine"
    assert {run.settings.optimizer.lr for run in plan.runs} == {1e-4}
    alphas = {run.cell: run.settings.uncertainty.alpha for run in plan.runs}
    assert alphas["full"] == alphas["without_perception"] == 0.5
    assert alphas["without_uncertainty"] == alphas["grpo_baseline"] == 0.0


def test_swept_values_multiply_the_cells(catalogue: Catalogue) -> None:
    plan = plan_sweep(["sweep=modules", "optimizer.lr=1e-4,2e-4", "seed=0"], catalogue)
    names = {run.cell: run.settings.optimizer.lr for run in plan.runs}
    assert len(names) == 12
    assert names["full__optimizer.lr-0.0001"] == 1e-4 and names["full__optimizer.lr-0.0002"] == 2e-4


def test_the_name_tells_experiment_and_changes(catalogue: Catalogue) -> None:
    words = ["sweep=modules", "experiment=q_hawkeye", "scale=miniature", "sweep.seeds=[0]"]
    plan = plan_sweep([*words, "hydra/launcher=slurm", "hydra.launcher.nodes=2"], catalogue)
    assert plan.name == "modules__q_hawkeye__scale-miniature"
    assert plan.launcher.form == "slurm" and plan.launcher.nodes == 2
    # a list's items are joined by what no study may hold
    plan = plan_sweep(["sweep=uncertainty", "model.tiny.depth=3", "optimizer.betas=[0.9,0.95]"], catalogue)
    assert plan.name == "uncertainty__model.tiny.depth-3__optimizer.betas-0.9-0.95"


def test_a_multirun_is_every_combination_under_its_usual_names(catalogue: Catalogue) -> None:
    words = ["seed=0,1", "uncertainty=glob([none,lin*])"]
    plan = plan_multirun(words, catalogue)
    assert [(run.seed, run.settings.uncertainty.form) for run in plan.runs] == [
        (0, "linear"),
        (1, "linear"),
        (0, "none"),
        (1, "none"),
    ]
    single = prepare("train", ["uncertainty=none", "seed=1"], catalogue).settings
    assert plan.runs[-1].settings == single
    assert plan.name.startswith("multirun")
    assert {run.cell for run in plan.runs} == {"uncertainty-linear", "uncertainty-none"}


def test_cells_of_a_multirun_are_named_by_what_varies(catalogue: Catalogue) -> None:
    words = ["experiment=q_hawkeye,grpo_baseline", "scale=miniature", "optimizer.lr=1e-4,2e-4", "seed=0"]
    plan = plan_multirun(words, catalogue)
    assert [run.cell for run in plan.runs] == [
        f"{experiment}__optimizer.lr-{lr}"
        for experiment in ("q_hawkeye", "grpo_baseline")
        for lr in ("0.0001", "0.0002")
    ]
    assert plan.runs[0].settings.name == "q_hawkeye__optimizer.lr-0.0001__scale-miniature"
    assert {run.cell for run in plan_multirun(["name=a,b", "seed=0"], catalogue).runs} == {"a", "b"}


def test_a_single_run_is_a_plan_of_one_cell(catalogue: Catalogue) -> None:
    words = ["experiment=q_hawkeye", "scale=miniature", "seed=4"]
    plan = plan_multirun([*words, "hydra/launcher=slurm"], catalogue)
    single = prepare("train", words, catalogue).settings
    assert [run.settings for run in plan.runs] == [single]
    assert (plan.name, plan.launcher.form) == (single.name, "slurm")
    assert plan_multirun(words[:2], catalogue).runs[0].seed == 0


def test_a_search_without_a_validation_part_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(UserError, match=r"^loading\.validation_fraction: 0 leaves sweep\.search\.metric "):
        plan_sweep(["sweep=random", "loading.validation_fraction=0"], catalogue)
    assert plan_sweep(["sweep=random"], catalogue).search
    assert plan_sweep(["sweep=modules", "loading.validation_fraction=0"], catalogue).runs


def test_dry_run_prints_cells_and_leaves_nothing(qhk: Qhk, tmp_path: object) -> None:
    code, out, err = qhk("train", "sweep=modules", "seed=0,1", "dry_run=true")
    assert (code, err) == (0, "")
    assert "6 cells, 12 runs" in out and "grpo_baseline" in out
    code, out, _ = qhk("train", "-m", "seed=0,1", "dry_run=true")
    assert code == 0 and "1 cells, 2 runs" in out


def test_a_run_on_disk_that_would_compute_something_else_is_refused(
    make_sweep: MakeSweep, settings: Settings, tmp_path: Path
) -> None:
    manifest, outputs = make_sweep("a", "b"), tmp_path / "outputs"
    same, new = (planned(settings, outputs, name, lr=1e-4) for name in ("a", "c"))
    refuse_changed(manifest, [same, new])
    other = planned(settings, outputs, "a", lr=0.5)
    with pytest.raises(
        ValueError, match=r"a/seed0 is run id .*optimizer\.lr was 0\.0001, is 0\.5.* another study"
    ):
        refuse_changed(manifest, [same, other])
    earlier = replace(manifest, runs=tuple(replace(run, run_id="0" * 12) for run in manifest.runs))
    refuse_changed(earlier, [same])
    with pytest.raises(ValueError, match="a/seed0 is run id 000000000000 in the sweep on disk and"):
        refuse_changed(earlier, [other])
