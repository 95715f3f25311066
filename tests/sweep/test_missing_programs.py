"""``nvidia-smi`` may be missing, fail, or be a file that cannot start: none is a GPU, and a line says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhk.sweep.local import _listed_gpus


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which programs are looked for."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def write(folder: Path, text: str) -> None:
    path = folder / "nvidia-smi"
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
