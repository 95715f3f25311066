"""Equal runs are computed once: in one sweep, and across sweeps; what differs in code or data is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from qhk.errors import UserError
from qhk.settings.root import Settings
from qhk.sweep.plan import PlannedRun
from qhk.sweep.sharing import Sharing, existing_runs, submitted_codes
from qhk.tracking.provenance import gather_provenance, write_provenance
from qhk.tracking.status import RunState
from tests.sweep.builders import planned, set_status

CODE = "c" * 64
DATA = {"miniature_koniq": "1", "miniature_spaq": "2"}
Reader = Callable[[Settings], Mapping[str, str]]


def _leave(
    settings: Settings,
    outputs: Path,
    name: str,
    state: RunState,
    *,
    code: str = CODE,
    data: Mapping[str, str] = DATA,
) -> Path:
    """An earlier run of the settings, by code of the given digest and on the given data."""
    run = planned(settings, outputs, name).frozen()
    set_status(run, state)
    provenance = gather_provenance(code=code, data_fingerprints=data, accelerators=[], threads=1)
    write_provenance(run.directory / "provenance.json", provenance)
    return run.directory


def _share(
    outputs: Path,
    *runs: PlannedRun,
    code: str = CODE,
    data: Reader = lambda settings: DATA,
    fresh: bool = False,
) -> SimpleNamespace:
    sharing = Sharing(
        existing=existing_runs(outputs),
        submitted=submitted_codes(outputs),
        code=lambda settings: code,
        data=data,
        fresh=fresh,
    )
    return SimpleNamespace(runs=sharing.share(runs), notes=sharing.notes)


def _unreadable(settings: Settings) -> Mapping[str, str]:
    raise ValueError("dataset.koniq.root: no folder /data")


def test_equal_cells_of_one_sweep_share_a_directory(settings: Settings, tmp_path: Path) -> None:
    runs = [
        planned(settings, tmp_path, "a"),
        planned(settings, tmp_path, "b", lr=0.5),
        planned(settings, tmp_path, "c"),
    ]
    shared = _share(tmp_path, *runs, data=_unreadable).runs
    assert [run.same_as for run in shared] == ["", "", "a/seed0"]
    assert shared[2].directory == shared[0].directory != shared[1].directory
    assert shared[2].run_id == shared[0].run_id != shared[1].run_id
    assert {run.code for run in shared} == {CODE}


def test_equal_cells_that_read_another_folder_share_only_equal_data(
    settings: Settings, tmp_path: Path
) -> None:
    """The roots of sets are no part of a run's id."""
    name, entry = next(iter(settings.dataset.items()))
    real = settings.model_copy(
        update={"dataset": {name: entry.model_copy(update={"miniature": False, "root": "/one"})}}
    )
    other = real.model_copy(
        update={"dataset": {name: entry.model_copy(update={"miniature": False, "root": "/two"})}}
    )
    runs = [planned(real, tmp_path, "a"), planned(other, tmp_path, "b")]
    assert runs[0].run_id == runs[1].run_id
    same = _share(tmp_path, *runs).runs
    assert [run.same_as for run in same] == ["", "a/seed0"]
    for data in (lambda one: {name: str(one.dataset[name].root)}, _unreadable):
        apart = _share(tmp_path, *runs, data=data).runs
        assert [run.same_as for run in apart] == ["", ""]
        assert apart[0].directory != apart[1].directory


def test_a_finished_run_of_another_study_is_found(settings: Settings, tmp_path: Path) -> None:
    directory = _leave(settings, tmp_path, "earlier", RunState.DONE)
    run = _share(tmp_path, planned(settings, tmp_path, "now")).runs[0]
    assert (run.directory, run.same_as, run.state) == (directory, "s/earlier/seed0", RunState.DONE)
    again = _share(tmp_path, planned(settings, tmp_path, "now"), fresh=True).runs[0]
    assert again.same_as == "" and again.directory.parts[-2] == "now"


def test_a_failed_run_is_not_shared(settings: Settings, tmp_path: Path) -> None:
    _leave(settings, tmp_path, "earlier", RunState.FAILED)
    shared = _share(tmp_path, planned(settings, tmp_path, "now"))
    assert shared.runs[0].same_as == "" and shared.notes == []


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"code": "d" * 64}, "of other code"),
        ({"data": {**DATA, "miniature_spaq": "3"}}, "data miniature_spaq changed since"),
        ({"data": {"miniature_koniq": "1"}}, "data miniature_spaq changed since"),
    ],
)
def test_a_finished_run_of_other_code_or_data_is_not_shared_and_the_plan_says_why(
    settings: Settings, tmp_path: Path, made: dict[str, str], why: str
) -> None:
    _leave(settings, tmp_path, "earlier", RunState.DONE, **made)  # type: ignore[arg-type]
    shared = _share(tmp_path, planned(settings, tmp_path, "now"))
    assert shared.runs[0].same_as == "" and shared.runs[0].directory.parts[-2] == "now"
    assert shared.notes == [f"not reused, {why}: s/earlier/seed0 for now/seed0"]


def test_of_several_finished_runs_the_one_of_equal_data_is_shared(settings: Settings, tmp_path: Path) -> None:
    _leave(settings, tmp_path, "a", RunState.DONE, data={})
    _leave(settings, tmp_path, "b", RunState.DONE)
    shared = _share(tmp_path, planned(settings, tmp_path, "now"))
    assert shared.runs[0].same_as == "s/b/seed0"


def test_many_runs_that_are_not_reused_are_one_line(settings: Settings, tmp_path: Path) -> None:
    for name in "abcde":
        _leave(settings, tmp_path, name, RunState.DONE, code="d" * 64)
    (note,) = _share(tmp_path, planned(settings, tmp_path, "now")).notes
    assert note.count("for now/seed0") == 3 and note.endswith(" and 2 more")


def test_data_that_cannot_be_read_here_is_not_compared(settings: Settings, tmp_path: Path) -> None:
    _leave(settings, tmp_path, "earlier", RunState.DONE)
    shared = _share(tmp_path, planned(settings, tmp_path, "now"), data=_unreadable)
    assert shared.runs[0].same_as == ""
    assert shared.notes == [
        "not reused, its data cannot be compared here: dataset.koniq.root: no folder /data: "
        "s/earlier/seed0 for now/seed0"
    ]
    own = _share(tmp_path, planned(settings, tmp_path, "earlier"), data=_unreadable)
    assert own.runs[0].state is RunState.DONE and own.notes[0].startswith("kept, its data cannot be compared")


def test_data_is_read_only_where_a_run_is_there_to_compare_with(settings: Settings, tmp_path: Path) -> None:
    asked: list[Settings] = []

    def data(one: Settings) -> Mapping[str, str]:
        asked.append(one)
        return DATA

    _share(tmp_path, planned(settings, tmp_path, "now"), planned(settings, tmp_path, "then"), data=data)
    assert asked == []
    _leave(settings, tmp_path, "earlier", RunState.DONE, code="d" * 64)
    _share(tmp_path, planned(settings, tmp_path, "now"), data=data)
    assert asked == [], "other code decides before any data is read"
    _leave(settings, tmp_path, "earlier", RunState.DONE)
    _share(tmp_path, planned(settings, tmp_path, "now"), data=data)
    assert len(asked) == 1


def test_the_own_directory_of_other_settings_code_or_data_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    _leave(settings, tmp_path, "a", RunState.DONE)
    with pytest.raises(ValueError, match="belongs to run id .*: choose another study"):
        _share(tmp_path, planned(settings, tmp_path, "a", lr=0.5))
    with pytest.raises(ValueError, match="finished by other code: qhk sweep resume .* choose another study"):
        _share(tmp_path, planned(settings, tmp_path, "a"), code="d" * 64)
    other = {**DATA, "miniature_koniq": "9"}
    with pytest.raises(ValueError, match="is finished, but data miniature_koniq changed since: choose"):
        _share(tmp_path, planned(settings, tmp_path, "a"), data=lambda one: other)
    _leave(settings, tmp_path, "a", RunState.PREEMPTED, code="d" * 64)
    assert _share(tmp_path, planned(settings, tmp_path, "a")).runs[0].state is RunState.PREEMPTED
    with pytest.raises(ValueError, match="is unfinished, but data miniature_koniq changed since"):
        _share(tmp_path, planned(settings, tmp_path, "a"), data=lambda one: other)


def test_a_run_that_waits_elsewhere_is_shared_if_it_was_submitted_with_this_code(
    settings: Settings, tmp_path: Path
) -> None:
    """It has no provenance yet; what it will run is what its sweep froze."""
    waiting = replace(planned(settings, tmp_path, "earlier"), code=CODE).frozen()
    set_status(waiting, RunState.PENDING)
    file = tmp_path / "sweeps/x/sweep.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"runs": [{"directory": str(waiting.directory), "code": CODE}]}))
    run = planned(settings, tmp_path, "now")
    assert _share(tmp_path, run).runs[0].same_as == "s/earlier/seed0"
    assert _share(tmp_path, run, code="d" * 64).runs[0].same_as == ""


def test_the_cell_that_has_begun_is_the_one_that_an_equal_cell_follows(
    settings: Settings, tmp_path: Path
) -> None:
    directory = _leave(settings, tmp_path, "b", RunState.FAILED)
    shared = _share(tmp_path, planned(settings, tmp_path, "a"), planned(settings, tmp_path, "b")).runs
    assert [(run.cell, run.same_as, run.directory) for run in shared] == [
        ("a", "b/seed0", directory),
        ("b", "", directory),
    ]


def test_archived_runs_are_not_known(settings: Settings, tmp_path: Path) -> None:
    directory = _leave(settings, tmp_path, "a", RunState.DONE)
    directory.rename(directory.with_name("seed0.replaced-1"))
    assert existing_runs(tmp_path) == {}


def test_an_id_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "study" / "name" / "seed0" / "run_id"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"seed0/run_id: is not text in UTF-8"):
        existing_runs(tmp_path)


def test_a_sweeps_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "sweeps/x/sweep.json"
    file.parent.mkdir(parents=True)
    for text in ("{", "[]", "{}"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"x/sweep\.json is not a sweep's file .*: move its folder away"):
            submitted_codes(tmp_path)
