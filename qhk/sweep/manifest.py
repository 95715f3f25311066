"""``outputs/sweeps/<name>/``: a sweep's frozen runs, their settings and code, and the record of its jobs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from qhk.errors import UserError
from qhk.files import (
    append_json_lines,
    read_json,
    read_json_lines,
    reading,
    typed,
    write_atomically,
    writing,
)
from qhk.settings.parse import plain_settings, read_settings
from qhk.settings.root import Settings
from qhk.settings.sweep import LauncherSettings, SearchSettings, parse_launcher
from qhk.tracking.code import code_digest, own_sources
from qhk.tracking.commit import COMMIT_FILE, source_commit

FOLDER = "sweeps"
"""Below outputs; beside the studies."""

MANIFEST_FILE = "sweep.json"
JOBS_FILE = "jobs.jsonl"
"""The record of what was submitted and cancelled, in a sweep's folder."""

CANCELLED = "by qhk sweep cancel"
"""How a run was cancelled by that command, behind its state."""

ANY_CODE = "any"
"""In place of a digest: the run accepts whatever code it finds."""


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One cell at one seed. ``changes`` are the cell's own overrides.

    ``code`` is the digest of all it runs: the package and the user's ``modules`` that it takes rewards from,
    with what they import. ``directory`` is where the run lies; ``same_as`` names the run that it shares the
    directory with, "" for none.
    """

    cell: str
    seed: int
    changes: tuple[str, ...]
    run_id: str
    modules: tuple[str, ...]
    code: str
    directory: Path
    same_as: str

    @property
    def label(self) -> str:
        """``cell/seed2``, unique in its sweep."""
        return f"{self.cell}/seed{self.seed}"

    @property
    def log(self) -> Path:
        """What the run's first process printed, over all its starts."""
        return self.directory / "console.log"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A sweep on disk. ``folder`` is its directory, ``cwd`` where its runs start."""

    folder: Path
    cwd: Path
    overrides: tuple[str, ...]
    launcher: LauncherSettings
    search: SearchSettings | None
    runs: tuple[SweepRun, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def cells(self) -> list[str]:
        return list(dict.fromkeys(run.cell for run in self.runs))

    @property
    def trials_left(self) -> int:
        """The number of a search's trials that have not been drawn yet; 0 where nothing is searched."""
        return 0 if self.search is None else max(0, self.search.trials - len(self.cells))

    def code_folder(self, run: SweepRun) -> Path:
        """The copy of all code that the run's digest is of; it comes first on the run's import path."""
        return code_folder(self.folder, run.code)

    def config(self, run: SweepRun) -> Path:
        """The file of a run's frozen settings."""
        return self.folder / "configs" / run.cell / f"seed{run.seed}.yaml"

    def settings(self, run: SweepRun) -> Settings:
        """Return the frozen settings of a run."""
        return read_settings(self.config(run))


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """A run was handed to a launcher, or cancelled, by process ``pid`` on ``host``.

    ``cause``: how it was cancelled, "" for a submitted one. ``job``: SLURM's id ("12_3") and ``cluster``
    its cluster's name; both are "" for runs on a machine.
    """

    time: float
    kind: Literal["submitted", "cancelled"]
    label: str
    job: str
    cluster: str
    cause: str
    pid: int
    host: str


def sweep_folder(outputs: Path, name: str) -> Path:
    """Return ``<outputs>/sweeps/<name>``."""
    return outputs / FOLDER / name


def find_sweep(outputs: Path, name: str) -> Path:
    """Return the folder of a sweep, by name or by path. Raises UserError that lists the known ones."""
    for folder in (sweep_folder(outputs, name), Path(name)):
        if (folder / MANIFEST_FILE).is_file():
            return folder.absolute()
    known = sorted(file.parent.name for file in (outputs / FOLDER).glob(f"*/{MANIFEST_FILE}"))
    found = f"known: {', '.join(known)}" if known else f"there is none below {outputs / FOLDER}"
    raise UserError(f"{name}: no such sweep; {found}")


def freeze_run(manifest: Manifest, run: SweepRun, settings: Settings) -> None:
    """Write the settings that the run will have whenever it starts, with absolute paths."""
    plain = plain_settings(settings)
    plain["paths"] = {key: str(manifest.cwd / value) for key, value in plain["paths"].items()}
    study, name = run.directory.parts[-3:-1]
    plain.update(study=study, name=name, fresh=False, dry_run=False)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
    title = f"# Frozen settings of {run.label}, sweep {manifest.name}.\n"
    write_atomically(manifest.config(run), title + text)


def code_folder(folder: Path, digest: str) -> Path:
    """Return where the copy of the code with that digest lies in a sweep's folder."""
    return folder / "code" / digest[:16]


def freeze_code(folder: Path, package: Path, modules: Collection[str] = ()) -> str:
    """Copy the package and the user's ``modules`` below ``folder`` and return their common digest.

    Raises UserError where the modules cannot be imported from their copy.
    """
    digest = code_digest({package.name: package}, modules)
    target = code_folder(folder, digest)
    if (target / package.name).exists():
        return digest
    unfinished = target.with_name(f".{target.name}.unfinished")
    with writing(target):
        for leftover in (unfinished, target):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(package, unfinished / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        for source in own_sources(modules, apart=[package.name]):
            copy = unfinished / source.place
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.path, copy)
        (unfinished / COMMIT_FILE).write_text(source_commit(package.parent) + "\n")
    if modules:
        _check_import(unfinished, modules)
    with writing(target):
        unfinished.rename(target)
    return digest


def import_path(code: Path) -> str:
    """Return the PYTHONPATH that puts a folder of code before everything else."""
    return os.pathsep.join([str(code.absolute()), *filter(None, [os.environ.get("PYTHONPATH")])])


def _check_import(copy: Path, modules: Collection[str]) -> None:
    """Import the modules as a run will, so that what they lack shows here and not in the queue."""
    words = ["import importlib, sys", "for name in sys.argv[1:]: importlib.import_module(name)"]
    done = subprocess.run(
        [sys.executable, "-P", "-B", "-c", "\n".join(words), *sorted(modules)],
        env={**os.environ, "PYTHONPATH": import_path(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(
            f"reward.terms: {', '.join(sorted(modules))} cannot be imported from the copy a sweep freezes "
            f"({last}); it holds the Python files that they name in import statements, and nothing else"
        )


def write_manifest(manifest: Manifest) -> None:
    """Replace ``sweep.json``."""
    content: dict[str, Any] = {
        "cwd": str(manifest.cwd),
        "overrides": list(manifest.overrides),
        "launcher": manifest.launcher.model_dump(mode="json"),
        "search": None if manifest.search is None else manifest.search.model_dump(mode="json"),
        "runs": [{**asdict(run), "directory": str(run.directory)} for run in manifest.runs],
    }
    write_atomically(manifest.folder / MANIFEST_FILE, json.dumps(content, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Return the sweep in ``folder``. Raises UserError naming a file that is none of ours."""
    path = folder / MANIFEST_FILE
    with reading(path, "a sweep's file", "move its folder away"):
        content = read_json(path)
        search = content["search"]
        return Manifest(
            folder=folder,
            cwd=Path(content["cwd"]),
            overrides=tuple(content["overrides"]),
            launcher=parse_launcher(content["launcher"]),
            search=None if search is None else SearchSettings.model_validate(search),
            runs=tuple(_read_run(run, content) for run in content["runs"]),
        )


def read_submitted(file: Path) -> dict[Path, str]:
    """Return run directory -> digest of the code that the sweep of a ``sweep.json`` submitted it with.

    Raises UserError as ``read_manifest`` does.
    """
    with reading(file, "a sweep's file", "move its folder away"):
        content = read_json(file)
        return {Path(run["directory"]): run.get("code") or content["code"] for run in content["runs"]}


def _read_run(run: Mapping[str, Any], content: Mapping[str, Any]) -> SweepRun:
    """Return the run of an entry; the first sweeps had one code for all runs, and no modules."""
    entry = run if "code" in run else {**run, "code": content["code"], "modules": []}
    return typed(SweepRun, entry)


def record_events(manifest: Manifest, events: Iterable[JobEvent]) -> None:
    """Append to the sweep's record of jobs."""
    append_json_lines(manifest.folder / JOBS_FILE, [asdict(event) for event in events])


def last_events(manifest: Manifest) -> dict[str, JobEvent]:
    """Return label -> the last event of the run, for those that have any."""
    path = manifest.folder / JOBS_FILE
    # Records of earlier versions have neither cluster nor cause.
    before = {"cluster": "", "cause": CANCELLED}
    with reading(path, "a record of jobs", "repair or remove that line"):
        events = [typed(JobEvent, {**before, **row}) for row in read_json_lines(path)]
    return {event.label: event for event in events}


def is_cancelled(event: JobEvent | None) -> bool:
    """Return whether the last event of a run is that it was cancelled."""
    return event is not None and event.kind == "cancelled"


def event(
    kind: Literal["submitted", "cancelled"], label: str, *, job: str = "", cluster: str = "", cause: str = ""
) -> JobEvent:
    """Return an event of this process at the present time."""
    return JobEvent(
        time=time.time(),
        kind=kind,
        label=label,
        job=job,
        cluster=cluster,
        cause=cause,
        pid=os.getpid(),
        host=platform.node(),
    )
