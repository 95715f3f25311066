"""Run directories as tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk.errors import UserError
from qhk.report.runs import changed_keys, flat, read_runs
from tests.report.builders import STEPS, module_config, write_modules, write_run


def test_tables_of_a_study(tmp_path: Path) -> None:
    study = write_modules(tmp_path, seeds=2)
    runs = read_runs(study)
    assert list(runs.methods) == ["full", "grpo_baseline", "without_perception", "without_uncertainty"]
    assert len(runs.runs) == 8 and set(runs.runs.state) == {"done"}
    srcc = runs.results.query("metric == 'srcc' and moment == 'after'")
    assert len(srcc) == 16 and srcc.value.between(0.3, 1).all()
    reward = runs.curves[runs.curves.metric == "train/reward/total/mean"]
    assert reward.groupby(["method", "seed"]).step.max().eq(STEPS).all()
    assert len(runs.predictions) == 8 * 2 * 2 * 60
    assert set(runs.configs.key) >= {"uncertainty.form", "perception.gamma"}
    assert "seed" not in set(runs.configs.key)


def test_studies_are_named_only_where_they_tell_apart(tmp_path: Path) -> None:
    config = module_config(uncertainty=True, perception=True)
    for study in ("one", "two"):
        write_run(tmp_path, "same", 0, noise=0.5, config=config, study=study)
    write_run(tmp_path, "other", 0, noise=0.5, config=config, study="one")
    assert set(read_runs(tmp_path).methods) == {"one/same", "two/same", "other"}
    assert set(read_runs(tmp_path / "one").methods) == {"same", "other"}


def test_a_run_named_twice_is_there_once(tmp_path: Path) -> None:
    study = write_modules(tmp_path, seeds=1)
    assert len(read_runs(study, study / "full", study / "full" / "seed0").records) == 4


def test_replaced_runs_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, "m", 0, noise=0.5, config={})
    run.rename(run.with_name("seed0.replaced-1"))
    write_run(tmp_path, "m", 1, noise=0.5, config={})
    assert [record.seed for record in read_runs(tmp_path).records] == [1]


def test_a_broken_file_leaves_the_rest(tmp_path: Path) -> None:
    run = write_run(tmp_path, "m", 0, noise=0.5, config={"objective": {"beta": 1}})
    (run / "results.json").write_text("{")
    (record,) = read_runs(run).records
    assert "results.json" in record.fault and record.rows == () and record.config == {"objective.beta": 1}


@pytest.mark.parametrize(("name", "said"), [("nowhere", "does not exist"), (".", "holds no run")])
def test_a_path_without_runs_is_an_error(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_runs(tmp_path / name)


def test_changed_keys_and_flat() -> None:
    first, second = flat({"a": {"b": 1, "c": [1]}, "d": {}}), flat({"a": {"b": 2, "c": [1]}})
    assert first == {"a.b": 1, "a.c": "[1]", "d": "{}"}
    assert changed_keys([first, second]) == {"a.b": [1, 2], "d": ["{}", None]}


def test_the_entry_of_a_set_differs_where_all_use_it() -> None:
    one = {"data": ["a", "b"], "dataset": {"a": {"scale": 5}, "b": {"scale": 5}}}
    other = {"data": ["a"], "dataset": {"a": {"scale": 100}}}
    found = changed_keys([flat(one), flat(other), {}])
    assert {key: values[:2] for key, values in found.items()} == {
        "data": ['["a", "b"]', '["a"]'],
        "dataset.a.scale": [5, 100],
    }


def test_one_method_has_one_run_of_a_seed(tmp_path: Path) -> None:
    """Two folders with runs of one name and seed are two methods, named by where they lie."""
    for root in ("first", "second"):
        write_run(tmp_path / root, "m", 0, noise=0.5, config={})
    assert set(read_runs(tmp_path).methods) == {
        str(tmp_path / root / "study" / "m") for root in ("first", "second")
    }


def test_relative_paths_and_odd_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path, "m", 0, noise=0.5, config={})
    monkeypatch.chdir(run.parent)
    assert [record.label for record in read_runs("seed0").records] == ["m/seed0"]
    monkeypatch.chdir(run)
    assert [record.label for record in read_runs(".").records] == ["m/seed0"]
    odd = tmp_path / "evaluations" / "foo"
    odd.mkdir(parents=True)
    (odd / "config.yaml").write_text(": [")
    assert "not a config" in read_runs(odd).records[0].fault
