"""``outputs/sweeps/<name>/``: what a sweep consists of, frozen, and a record of every job."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from qhk.errors import UserError
from qhk.files import append_json_lines, read_json_lines, write_atomically
from qhk.settings import Settings, plain_settings, read_settings
from qhk.settings.sweep import LauncherSettings, SearchSettings, parse_launcher
from qhk.sweep.plan import PlannedRun
from qhk.tracking.code import code_digest, own_sources

FOLDER = "sweeps"
"""Below outputs; beside the studies."""

ANY_CODE = "any"

JOBS_FILE = "jobs.jsonl"
"""The record of what was submitted and called off, in a sweep's folder."""


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One cell at one seed, as it was submitted.

    ``code`` is the digest of all it runs: the package and the user's own ``modules`` that it takes rewards
    from, with what they import.
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
        """How many trials of a search have not been drawn yet; 0 where nothing is searched."""
        return 0 if self.search is None else max(0, self.search.trials - len(self.cells))

    def code_folder(self, run: SweepRun) -> Path:
        """What is put in front of a run's import path: a copy of all the code that its digest is of."""
        return code_folder(self.folder, run.code)

    def config(self, run: SweepRun) -> Path:
        """The frozen settings of a run."""
        return self.folder / "configs" / run.cell / f"seed{run.seed}.yaml"

    def settings(self, run: SweepRun) -> Settings:
        """The frozen settings of a run, read."""
        return read_settings(yaml.safe_load(self.config(run).read_text(encoding="utf-8")))


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """A run was handed to a launcher, or called off, by process ``pid`` on ``host``.

    ``job``: SLURM's id ("12_3") and ``cluster`` its cluster's name; both are "" for runs on a machine.
    """

    time: float
    kind: Literal["submitted", "cancelled"]
    label: str
    job: str
    cluster: str
    pid: int
    host: str


def sweep_folder(outputs: Path, name: str) -> Path:
    """``<outputs>/sweeps/<name>``."""
    return outputs / FOLDER / name


def find_sweep(outputs: Path, name: str) -> Path:
    """The folder of a sweep, by name or by path. Raises ValueError that lists those there are."""
    for folder in (sweep_folder(outputs, name), Path(name)):
        if (folder / "sweep.json").is_file():
            return folder.absolute()
    there = sorted(file.parent.name for file in (outputs / FOLDER).glob("*/sweep.json"))
    known = f"known: {', '.join(there)}" if there else f"there is none below {outputs / FOLDER}"
    raise UserError(f"{name}: no such sweep; {known}")


def freeze_run(manifest: Manifest, run: SweepRun, settings: Settings) -> None:
    """Writes the settings that the run will have whenever it starts, with absolute paths."""
    plain = plain_settings(settings)
    plain["paths"] = {key: str(manifest.cwd / value) for key, value in plain["paths"].items()}
    study, name = run.directory.parts[-3:-1]
    plain.update(study=study, name=name, fresh=False, dry_run=False)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
    write_atomically(
        manifest.config(run), f"# Frozen settings of {run.label}, sweep {manifest.name}.\n{text}"
    )


def code_folder(folder: Path, digest: str) -> Path:
    """Where the copy of the code with that digest lies in a sweep's folder."""
    return folder / "code" / digest[:16]


def freeze_code(folder: Path, package: Path, modules: Collection[str] = ()) -> str:
    """The digest of the package and of the user's ``modules``, after a copy of them was put below ``folder``.

    Raises ValueError, one line, where the modules cannot be imported from their copy.
    """
    digest = code_digest({package.name: package}, modules)
    target = code_folder(folder, digest)
    if (target / package.name).exists():
        return digest
    unfinished = target.with_name(f".{target.name}.unfinished")
    for leftover in (unfinished, target):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(package, unfinished / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for source in own_sources(modules, apart=[package.name]):
        copy = unfinished / source.place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path, copy)
    if modules:
        _check_import(unfinished, modules)
    unfinished.rename(target)
    return digest


def _check_import(copy: Path, modules: Collection[str]) -> None:
    """Imports the modules as a run will; what they need besides is found out here, not in the queue."""
    words = ["import importlib, sys", "for name in sys.argv[1:]: importlib.import_module(name)"]
    paths = [str(copy.absolute()), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-P", "-B", "-c", "\n".join(words), *sorted(modules)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
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


def planned_as_run(run: PlannedRun) -> SweepRun:
    """The planned run as the manifest keeps it."""
    return SweepRun(
        cell=run.cell,
        seed=run.seed,
        changes=run.changes,
        run_id=run.run_id,
        modules=run.modules,
        code=run.code,
        directory=run.directory.absolute(),
        same_as=run.same_as,
    )


def merge_runs(old: Sequence[SweepRun], new: Sequence[SweepRun]) -> tuple[SweepRun, ...]:
    """The runs of a sweep that is launched again, maybe with more cells or seeds.

    What was planned anew counts: where a run lies, and which it is the same as, may have changed since.
    Raises ValueError where a run of one label would now compute something else.
    """
    runs = {run.label: run for run in old}
    for run in new:
        before = runs.get(run.label)
        if before is not None and before.run_id != run.run_id:
            raise UserError(
                f"{run.label} is run id {before.run_id} in the sweep on disk and {run.run_id} now; "
                "choose another study=NAME"
            )
        runs[run.label] = run
    return tuple(runs.values())


def write_manifest(manifest: Manifest) -> None:
    """Replaces ``sweep.json``."""
    content: dict[str, Any] = {
        "cwd": str(manifest.cwd),
        "overrides": list(manifest.overrides),
        "launcher": manifest.launcher.model_dump(mode="json"),
        "search": None if manifest.search is None else manifest.search.model_dump(mode="json"),
        "runs": [{**asdict(run), "directory": str(run.directory)} for run in manifest.runs],
    }
    write_atomically(manifest.folder / "sweep.json", json.dumps(content, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The sweep in ``folder``. Raises ValueError naming a file that is none of ours."""
    path = folder / "sweep.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        search = content["search"]
        return Manifest(
            folder=folder,
            cwd=Path(content["cwd"]),
            overrides=tuple(content["overrides"]),
            launcher=parse_launcher(content["launcher"]),
            search=None if search is None else SearchSettings.model_validate(search),
            runs=tuple(_read_run(run, content) for run in content["runs"]),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise UserError(f"{path} is not a sweep's file ({fault}): move its folder away") from None


def _read_run(run: Mapping[str, Any], content: Mapping[str, Any]) -> SweepRun:
    """The run of an entry; sweeps of earlier versions have one code for all runs, without modules."""
    entry = run if "code" in run else {**run, "code": content["code"], "modules": []}
    tuples = {name: tuple(entry[name]) for name in ("changes", "modules")}
    return SweepRun(**{**entry, **tuples, "directory": Path(entry["directory"])})


def record_events(manifest: Manifest, events: Iterable[JobEvent]) -> None:
    """Appends to the sweep's record of jobs."""
    append_json_lines(manifest.folder / JOBS_FILE, [asdict(event) for event in events])


def last_events(manifest: Manifest) -> dict[str, JobEvent]:
    """Label -> the last thing that was done about the run, for those that anything was done about."""
    rows = read_json_lines(manifest.folder / JOBS_FILE)
    return {row["label"]: JobEvent(**{"cluster": "", **row}) for row in rows}


def event(
    kind: Literal["submitted", "cancelled"], label: str, *, job: str = "", cluster: str = ""
) -> JobEvent:
    """What this process does now about a run."""
    return JobEvent(
        time=time.time(),
        kind=kind,
        label=label,
        job=job,
        cluster=cluster,
        pid=os.getpid(),
        host=platform.node(),
    )
