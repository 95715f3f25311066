"""``qhk doctor``: each thing that can be missing is said with its verdict."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from qhk.cli.commands import doctor
from qhk.cli.commands.doctor import GIB, Finding, devices, folders, packages, scheduler
from qhk.settings.paths import PathsSettings
from tests.conftest import Qhk

Programs = Callable[..., None]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Return what makes the only programs in reach: their names, what they print and their exit code."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def make(name: str, printed: str, code: int = 0) -> None:
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!{sys.executable} -S\nimport sys\nprint({printed!r})\nsys.exit({code})\n")
        file.chmod(0o755)

    return make


def shown(findings: Sequence[Finding], what: str) -> Finding:
    (found,) = [finding for finding in findings if finding.what == what]
    return found


def test_packages_are_held_against_what_is_needed() -> None:
    version = metadata.version("torch")
    needed = [
        "torch>=2.7",
        "numpy>=99",
        "nothing-of-that-name>=1",
        'rich>=13; extra == "shown"',
        'also-not-there>=2; extra == "absent"',
        'only-for-us>=2; extra == "dev"',
    ]
    found = list(packages(needed))
    assert shown(found, "torch") == Finding("torch", version)
    assert shown(found, "numpy").verdict == "fix" and "numpy>=99" in shown(found, "numpy").advice
    missing = shown(found, "nothing-of-that-name")
    assert (missing.found, missing.verdict) == ("missing", "fix")
    assert shown(found, "extra shown").verdict == "ok"
    absent = shown(found, "extra absent")
    assert absent.verdict == "note" and "also-not-there>=2" in absent.found and "qhk[absent]" in absent.advice
    assert not [finding for finding in found if "only-for-us" in f"{finding}"]


def test_a_cluster_is_asked_for_its_partitions(programs: Programs) -> None:
    assert shown([*scheduler()], "SLURM").verdict == "note"
    programs("sbatch", "slurm 24.11.3")
    assert shown([*scheduler()], "SLURM").verdict == "fix"
    programs("sinfo", "", code=1)
    assert shown([*scheduler()], "SLURM").verdict == "fix"
    programs("sinfo", "gpu up\nlong down")
    assert shown([*scheduler()], "SLURM") == Finding("SLURM", "slurm 24.11.3: gpu up, long down")


def test_a_card_without_a_torch_that_uses_it_is_to_be_fixed(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert shown([*devices()], "CUDA").verdict == "note"
    programs("nvidia-smi", "570.86\n570.86")
    monkeypatch.setattr(torch.version, "cuda", None)
    found = shown([*devices()], "CUDA")
    assert found.verdict == "fix" and found.found == "driver 570.86, but torch is the CPU build"
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "cannot use the driver" in shown([*devices()], "CUDA").found


def test_cards_are_listed(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    class Card:
        def __init__(self, name: str, major: int) -> None:
            self.name, self.major, self.total_memory = name, major, 24 * GIB

    cards: list[Any] = [Card("new", 9), Card("old", 7)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: cards[number])
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    found = list(devices())
    assert shown(found, "GPU 0") == Finding("GPU 0", "new, 24 GiB")
    assert shown(found, "GPU 1").verdict == "note" and "float32" in shown(found, "GPU 1").advice
    assert shown(found, "NCCL").found == "2.27.3"


def test_folders_are_held_against_what_runs_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    paths = PathsSettings(
        outputs=str(tmp_path / "file" / "out"), cache=str(tmp_path / "new"), datasets=str(tmp_path / "file")
    )
    found = list(folders(paths, lambda place: 100 * GIB))
    assert shown(found, "paths.outputs").verdict == "fix"
    assert shown(found, "paths.cache") == Finding("paths.cache", f"{tmp_path / 'new'}: 100 GiB free")
    assert shown(found, "paths.datasets").verdict == "note"
    assert shown([*folders(paths, lambda place: GIB)], "paths.cache").verdict == "note"


def test_what_is_to_be_fixed_is_the_exit_code(
    qhk: Qhk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["torch>=2.7"])
    code, out, err = qhk("doctor", f"paths.outputs={tmp_path}/out")
    assert (code, err) == (0, "") and "torch" in out and "paths.outputs" in out
    (tmp_path / "file").touch()
    code, out, _ = qhk("doctor", f"paths.outputs={tmp_path}/file")
    assert code == 1 and "fix" in out
