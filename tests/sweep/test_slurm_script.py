"""The script that SLURM is handed, run by the shell with programs in place of SLURM's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from qhk.errors import UserError
from qhk.sweep import slurm
from tests.sweep.builders import SLURM, MakeSweep

SBATCH = '#!/bin/sh\ncp "$1" "$KEPT/script"\necho Submitted batch job 7\n'
SRUN = '#!/bin/sh\nprintf "%s\\n" "$PYTHONPATH" "$@" > "$KEPT/srun"\n'


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_every_path_is_one_word_to_the_shell(
    make_sweep: MakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, place = tmp_path / "programs", tmp_path / 'it\'s $(touch x) "q" `touch x`; touch x'
    for folder in (programs, place):
        folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("KEPT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "/before")
    manifest = replace(make_sweep("a"), folder=place / "sweep", cwd=place)

    assert slurm.submit(manifest, SLURM, manifest.runs) == ["7"]

    subprocess.run(["bash", str(tmp_path / "script")], cwd=tmp_path, check=True)
    import_path, *words = (tmp_path / "srun").read_text().splitlines()
    assert import_path == f"{manifest.code_folder(manifest.runs[0])}:/before"
    assert words[-3:] == ["-m", "submitit.core._submit", str(manifest.folder / "submitit")]
    assert str(manifest.folder / "submitit" / "%j_%t_log.out") in words
    assert not list(tmp_path.rglob("x"))


def test_a_path_that_ends_a_line_of_the_script_is_refused(make_sweep: MakeSweep, tmp_path: Path) -> None:
    manifest = replace(make_sweep("a"), cwd=tmp_path / "a\ntouch x")
    with pytest.raises(UserError, match=r"a\\ntouch x' has control characters; rename that folder"):
        slurm.submit(manifest, SLURM, manifest.runs)
