"""``qhk export``: plain Hugging Face weights of a run, an adapter merged into them, with a model card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from qhk.cli.command import LightCommand, LightJob
from qhk.cli.process import quiet_libraries
from qhk.errors import UserError
from qhk.files import read_text, writing
from qhk.plain import print
from qhk.settings.base import FileText, Node
from qhk.settings.parse import read_settings
from qhk.settings.paths import PathsSettings
from qhk.settings.root import Settings
from qhk.tracking.archive import archive_folder
from qhk.tracking.run_directory import refuse_place


class ExportRequest(Node):
    """Where an export goes, in which precision, and whether it may take the place of an earlier one."""

    paths: PathsSettings
    output: FileText | None
    dtype: Literal["float32", "bfloat16", "float64"] | None
    fresh: bool


def run(job: LightJob[ExportRequest]) -> int:
    """Return 0 after every export is written. Raises ``UserError``, before any is, where one cannot be."""
    quiet_libraries()
    from qhk.training.checkpoint import checkpoint_config

    request = job.request
    given = len(job.positionals)
    if request.output is not None and given > 1:
        raise UserError(f"output: {request.output} is for one export, got {given}; leave it out")
    planned: dict[Path, tuple[Path, Settings]] = {}
    for word in job.positionals:
        checkpoint = find_checkpoint(Path(word))
        settings = read_settings(checkpoint_config(checkpoint))
        target = export_folder(request.paths, settings, checkpoint)
        target = target if request.output is None else Path(request.output)
        if target in planned:
            raise UserError(f"{word}: its export would take the place of another one's; name it once")
        if target.exists() and not request.fresh:
            raise UserError(f"{target}: is there; fresh=true renames it, output=FOLDER writes elsewhere")
        refuse_place("output or paths.outputs", target)
        planned[target] = (checkpoint, settings)
    for target, (checkpoint, settings) in planned.items():
        write_export(checkpoint, settings, target, dtype=request.dtype or settings.model.dtype)
        print(target)
    return 0


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that a path means: its own folder, or the last one of a run.

    Raises ``UserError`` for any other path.
    """
    from qhk.training.checkpoint import CONFIG_FILE

    for folder in (path, path / "checkpoints" / "last"):
        if (folder / CONFIG_FILE).is_file():
            return folder.resolve()
    raise UserError(f"{path}: is no run with a checkpoint and no checkpoint; give outputs/STUDY/NAME/seed0")


def export_folder(paths: PathsSettings, settings: Settings, checkpoint: Path) -> Path:
    """Return ``<outputs>/exports/<study>/<name>/seed<k>/<checkpoint's name>``."""
    assert settings.name is not None, "a run has a name"
    run = Path(settings.study) / settings.name / f"seed{settings.seed}"
    return Path(paths.outputs) / "exports" / run / checkpoint.name


def write_export(checkpoint: Path, settings: Settings, target: Path, *, dtype: str) -> None:
    """Write the weights of a checkpoint for plain transformers, their card, and what qhk asks them with.

    The folder appears under its name once it is complete, and is a checkpoint of ours, too. An adapter is
    added to its base in float32, or wider where the run was, and the sum is then rounded once.
    """
    from qhk.evaluation.results import read_results
    from qhk.policy.contents import write_contents
    from qhk.policy.load import load_merged, save_policy
    from qhk.report.model_card import model_card
    from qhk.settings.identity import run_id
    from qhk.tracking.validation import validation_line
    from qhk.training.checkpoint import CONFIG_FILE, STAGE_FILE, checkpoint_step

    model = settings.model
    policy = load_merged(
        str(checkpoint), dtype=dtype, min_pixels=model.min_pixels, max_pixels=model.max_pixels
    )
    directory = checkpoint.parent.parent
    results, named = directory / "results.json", directory / "run_id"
    card = model_card(
        settings,
        run_id=read_text(named).strip() if named.is_file() else run_id(settings),
        step=checkpoint_step(checkpoint),
        rows=read_results(results).rows if results.is_file() else (),
        validation=validation_line(directory),
    )
    partial = target.with_name(f".partial_{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    with writing(target):
        partial.mkdir(parents=True)
        try:
            save_policy(policy, partial)
            (partial / "README.md").write_text(card, encoding="utf-8")
            for name in (CONFIG_FILE, STAGE_FILE):
                if (checkpoint / name).is_file():
                    shutil.copyfile(checkpoint / name, partial / name)
            write_contents(partial)
            archive_folder(target)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


COMMAND = LightCommand(
    sentence="Writes plain Hugging Face weights of runs or checkpoints, adapters merged, with a model card.",
    positionals="RUNS...",
    recipes=(
        ("the last checkpoint of a run", "qhk export outputs/default/default/seed0"),
        (
            "a checkpoint, somewhere else",
            "qhk export outputs/default/default/seed0/checkpoints/best output=my_model",
        ),
    ),
    request=ExportRequest,
    run=run,
)
