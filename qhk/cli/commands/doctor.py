"""``qhk doctor``: versions, GPUs, scheduler and disk of this machine, with a verdict each."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from qhk.cli.command import LightCommand, LightJob
from qhk.cli.process import quiet_libraries
from qhk.files import unwritable
from qhk.settings.base import Node
from qhk.settings.paths import PathsSettings

GIB = 2**30
LITTLE_DISK = 20 * GIB
"""Free bytes below which a 7B run fills the disk: a checkpoint of its weights alone has 15 GiB."""

ANSWER_S = 20.0
"""How long a program of another's may take to say what it is."""

STYLES = {"ok": "green", "note": "yellow", "fix": "bold red"}


class DoctorRequest(Node):
    """The folders that are looked at."""

    paths: PathsSettings


@dataclass(frozen=True)
class Finding:
    """What was found of one thing. ``verdict``: ``fix`` stops runs, ``note`` stops some kinds of run."""

    what: str
    found: str
    verdict: Literal["ok", "note", "fix"] = "ok"
    advice: str = ""


def run(job: LightJob[DoctorRequest]) -> int:
    """Return 0 after the table is printed; 1 where something is to be fixed."""
    from qhk.sweep.table import table_console
    from qhk.tables import Table, Text

    quiet_libraries()
    findings = [
        *packages(metadata.requires("qhk") or []),
        *devices(),
        *scheduler(),
        *folders(job.request.paths),
    ]
    table = Table("what", "found", "", "advice", title="qhk doctor")
    for finding in findings:
        table.add_row(
            finding.what, finding.found, Text(finding.verdict, STYLES[finding.verdict]), finding.advice
        )
    table_console().print(table)
    return int(any(finding.verdict == "fix" for finding in findings))


def packages(requirements: Sequence[str]) -> Iterator[Finding]:
    """Yield Python, every package that qhk needs, and every extra, against what is installed.

    ``requirements`` are as a package's metadata has them: ``torch>=2.7``, ``av>=14; extra == "video"``.
    """
    from packaging.requirements import Requirement

    yield Finding("python", platform.python_version())
    extras: dict[str, list[str]] = {}
    for text in requirements:
        needed = Requirement(text)
        extra = _extra(str(needed.marker or ""))
        if extra == "dev":
            continue
        found = _version(needed.name)
        fits = found is not None and needed.specifier.contains(found, prereleases=True)
        if extra:
            extras.setdefault(extra, []).extend([] if fits else [f"{needed.name}{needed.specifier}"])
        elif fits:
            yield Finding(needed.name, str(found))
        else:
            wanted = f"{needed.name}{needed.specifier}"
            yield Finding(needed.name, found or "missing", "fix", f"pip install '{wanted}'")
    for extra, missing in extras.items():
        if missing:
            yield Finding(
                f"extra {extra}", "without " + ", ".join(missing), "note", f"pip install 'qhk[{extra}]'"
            )
        else:
            yield Finding(f"extra {extra}", "installed")


def _extra(marker: str) -> str:
    """Return the extra that a marker such as ``extra == "video"`` names, or ""."""
    _, named, rest = marker.partition('extra == "')
    return rest.partition('"')[0] if named else ""


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def devices() -> Iterator[Finding]:
    """Yield processors and memory, the GPUs that torch sees, and what its processes talk through."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("processor", f"{len(os.sched_getaffinity(0))} cores, {memory / GIB:.0f} GiB")
    driver = answer(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    if torch.cuda.is_available():
        yield Finding("CUDA", f"torch's {torch.version.cuda}, driver {(driver or 'unknown').split()[0]}")
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            size = f"{card.name}, {card.total_memory / GIB:.0f} GiB"
            if card.major >= 8:
                yield Finding(f"GPU {number}", size)
            else:
                yield Finding(f"GPU {number}", size, "note", "no bfloat16: model.dtype=float32")
        yield Finding("NCCL", ".".join(map(str, torch.cuda.nccl.version())))  # type: ignore[no-untyped-call]
    elif driver is not None:
        build = "torch is the CPU build" if torch.version.cuda is None else "torch cannot use the driver"
        yield Finding("CUDA", f"driver {driver.split()[0]}, but {build}", "fix", "make install FLAVOUR=cuda")
    else:
        yield Finding("CUDA", "no GPU", "note", "runs of the tiny model alone; processes talk through gloo")


def scheduler() -> Iterator[Finding]:
    """Yield the cluster that ``hydra/launcher=slurm`` would submit to."""
    version = answer(["sbatch", "--version"])
    if version is None:
        yield Finding("SLURM", "no sbatch", "note", "hydra/launcher=slurm needs one; local is the default")
        return
    partitions = answer(["sinfo", "--noheader", "--format=%R %a"])
    if partitions is None:
        yield Finding(
            "SLURM", version, "fix", "sinfo gets no answer: is slurmctld up, and slurm.conf readable?"
        )
        return
    yield Finding("SLURM", f"{version}: {', '.join(partitions.splitlines()) or 'no partition'}")


def folders(
    paths: PathsSettings, free: Callable[[Path], int] = lambda place: shutil.disk_usage(place).free
) -> Iterator[Finding]:
    """Yield whether the folders of runs and caches can be written, and what is free there.

    ``free`` tells the free bytes of a folder that is there.
    """
    hub = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    places = {
        "paths.outputs": paths.outputs,
        "paths.cache": paths.cache,
        "paths.datasets": paths.datasets,
        "HF_HOME": hub,
    }
    for key, place in places.items():
        folder = Path(place).absolute()
        fault = unwritable(folder)
        if fault and key == "paths.datasets":
            yield Finding(
                key, f"{folder}: {fault}", "note", "sets there are read, none can be downloaded to it"
            )
            continue
        if fault:
            yield Finding(key, f"{folder}: {fault}", "fix", f"set {key} to a folder that can be written")
            continue
        there = next(above for above in (folder, *folder.parents) if above.is_dir())
        left = free(there)
        shown = f"{folder}: {left / GIB:.0f} GiB free"
        if left < LITTLE_DISK:
            yield Finding(
                key, shown, "note", "a checkpoint of a 7B model needs 15 GiB, with its optimizer 60"
            )
        else:
            yield Finding(key, shown)


def answer(words: list[str]) -> str | None:
    """Return what a program prints; None where it is missing, fails, or takes longer than ``ANSWER_S``."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=ANSWER_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


COMMAND = LightCommand(
    sentence="Says what this machine has: versions, GPUs, SLURM, disk; exit code 1 where runs would fail.",
    recipes=(
        ("this machine", "qhk doctor"),
        ("a node of a cluster", "srun qhk doctor paths.outputs=/scratch/me/outputs"),
    ),
    request=DoctorRequest,
    run=run,
)
