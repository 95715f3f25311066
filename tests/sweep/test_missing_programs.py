"""Programs may be missing, fail, or be files that cannot start; one line says so.

``nvidia-smi``: that is no GPU. SLURM's: nothing is submitted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk.errors import UserError
from qhk.sweep import slurm
from qhk.sweep.local import _listed_gpus
from tests.sweep.builders import SLURM, MakeSweep


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def write(folder: Path, text: str, name: str = "nvidia-smi") -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


def test_gpus_are_those_that_nvidia_smi_lists(programs: Path) -> None:
    assert _listed_gpus() == []
    write(programs, "#!/bin/sh\necho 'GPU 0: H100'\necho 'GPU 1: H100'\n")
    assert _listed_gpus() == ["0", "1"]


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not reach the NVIDIA driver'\nexit 9\n",
        "#!/nowhere/sh\n",
    ],
    ids=["no driver", "cannot start"],
)
def test_a_failing_nvidia_smi_lists_none(
    programs: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(programs, text)
    assert _listed_gpus() == []
    err = capsys.readouterr().err
    assert err.startswith("note: nvidia-smi failed") and err.count("\n") == 1


def test_a_slurm_that_does_not_work_is_one_line_with_a_fix(
    programs: Path, make_sweep: MakeSweep, capfd: pytest.CaptureFixture[str]
) -> None:
    def refusal() -> str:
        manifest = make_sweep("a")
        with pytest.raises(UserError) as caught:
            slurm.submit(manifest, SLURM, manifest.runs)
        assert capfd.readouterr() == ("", "")
        return str(caught.value)

    elsewhere = "; submit from a login node of the cluster, or leave hydra/launcher=slurm out to run here"
    assert refusal() == f"hydra/launcher=slurm: sbatch is not here{elsewhere}"
    write(programs, "#!/bin/sh\necho 'sbatch: error: no\nsbatch: fatal: such thing' >&2\nexit 1\n", "sbatch")
    assert refusal() == f"hydra/launcher=slurm: srun is not here{elsewhere}"
    write(programs, "#!/bin/sh\n", "srun")
    said = "sbatch: error: no sbatch: fatal: such thing"
    assert refusal() == f"hydra/launcher=slurm: SLURM does not work here: {said}{elsewhere}"
    write(programs, "#!/bin/sh\necho 'ClusterName = ours'\n", "scontrol")
    fix = "change the key below hydra.launcher that it names"
    assert refusal() == f"hydra/launcher=slurm: sbatch refused: {said}; {fix}"
