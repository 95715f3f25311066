"""Equal runs are computed once: in one sweep, and across sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk.settings import Settings
from qhk.sweep.manifest import planned_as_run
from qhk.sweep.plan import existing_runs, share_runs
from qhk.tracking.provenance import gather_provenance, write_provenance
from qhk.tracking.status import RunState
from tests.sweep.conftest import planned, say

CODE = "c" * 64


def _leave(settings: Settings, outputs: Path, name: str, state: RunState, *, code: str = CODE) -> Path:
    """An earlier run of the settings, by code of the given digest."""
    run = planned_as_run(planned(settings, outputs, name))
    say(run, state)
    provenance = gather_provenance(
        trees={"t": Path(__file__).parent}, data_fingerprints={}, accelerators=[], threads=1
    )
    object.__setattr__(provenance, "code_digest", code)
    write_provenance(run.directory / "provenance.json", provenance)
    return run.directory


def test_equal_cells_of_one_sweep_share_a_directory(settings: Settings, tmp_path: Path) -> None:
    runs = [
        planned(settings, tmp_path, "a"),
        planned(settings, tmp_path, "b", lr=0.5),
        planned(settings, tmp_path, "c"),
    ]
    shared = share_runs(runs, known={}, code=CODE, fresh=False)
    assert [run.same_as for run in shared] == ["", "", "a/seed0"]
    assert shared[2].directory == shared[0].directory != shared[1].directory
    assert shared[2].run_id == shared[0].run_id != shared[1].run_id


def test_a_finished_run_of_another_study_is_found(settings: Settings, tmp_path: Path) -> None:
    directory = _leave(settings, tmp_path, "earlier", RunState.DONE)
    known = existing_runs(tmp_path)
    run = share_runs([planned(settings, tmp_path, "now")], known=known, code=CODE, fresh=False)[0]
    assert (run.directory, run.same_as, run.state) == (directory, "s/earlier/seed0", RunState.DONE)
    again = share_runs([planned(settings, tmp_path, "now")], known=known, code=CODE, fresh=True)[0]
    assert again.same_as == "" and again.directory.parts[-2] == "now"


@pytest.mark.parametrize(("state", "code"), [(RunState.FAILED, CODE), (RunState.DONE, "d" * 64)])
def test_a_failed_run_or_one_of_other_code_is_not_shared(
    settings: Settings, tmp_path: Path, state: RunState, code: str
) -> None:
    _leave(settings, tmp_path, "earlier", state, code=code)
    runs = [planned(settings, tmp_path, "now")]
    assert share_runs(runs, known=existing_runs(tmp_path), code=CODE, fresh=False)[0].same_as == ""


def test_the_own_directory_of_other_settings_or_code_is_refused(settings: Settings, tmp_path: Path) -> None:
    _leave(settings, tmp_path, "a", RunState.DONE)
    with pytest.raises(ValueError, match="belongs to run id .*: choose another study"):
        share_runs([planned(settings, tmp_path, "a", lr=0.5)], known={}, code=CODE, fresh=False)
    with pytest.raises(ValueError, match="finished by other code"):
        share_runs([planned(settings, tmp_path, "a")], known={}, code="d" * 64, fresh=False)


def test_runs_moved_aside_are_not_known(settings: Settings, tmp_path: Path) -> None:
    directory = _leave(settings, tmp_path, "a", RunState.DONE)
    directory.rename(directory.with_name("seed0.replaced-1"))
    assert existing_runs(tmp_path) == {}
