"""Weights & Biases on disk: one offline run, rebuilt from the record, in ``<run>/wandb`` and nowhere else."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

from qhk.tracking.mirror import Ending, MirrorContent, MirrorRun, read_request, rebuild_in_child
from qhk.tracking.recorder import read_metrics
from qhk.tracking.wandb_run import SETTINGS, History, define_axes, finish, init_arguments


def rebuild(run: MirrorRun, content: MirrorContent, ending: Ending) -> str:
    """Replace the offline run below ``run.directory / "wandb"``; return the command that uploads it.

    Raises ``RuntimeError`` where that fails; then there is none.
    """
    folder = run.directory.resolve() / "wandb"
    _remove(folder, run.run_id)
    with tempfile.TemporaryDirectory(prefix="qhk-wandb-") as scratch:
        places = {f"WANDB_{kind}_DIR": str(Path(scratch) / kind.lower()) for kind in ("CACHE", "CONFIG")}
        # What an upload needs of tables; the run refers to it by its absolute path.
        places["WANDB_DATA_DIR"] = str(folder / "data")
        try:
            rebuild_in_child(
                "qhk.tracking.wandb_offline",
                run,
                content,
                ending,
                # Error reporting is wandb's own telemetry, which would use the network.
                environment={**places, "WANDB_ERROR_REPORTING": "false"},
            )
        except BaseException:
            _remove(folder, run.run_id)
            raise
    (built,) = folder.glob(f"offline-run-*-{run.run_id}")
    return f"W&B (offline): to upload, run  wandb sync {shlex.quote(str(built))}"


def _remove(folder: Path, run_id: str) -> None:
    for old in (*folder.glob(f"offline-run-*-{run_id}"), folder / "data"):
        shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write(run: MirrorRun, content: MirrorContent, ending: Ending) -> None:
    """Write the offline run. Runs in the child process."""
    import wandb

    rows = read_metrics(run.metrics)
    settings = wandb.Settings(**SETTINGS, silent=True, symlink=False, x_disable_stats=True)
    live = wandb.init(mode="offline", settings=settings, **init_arguments(run))
    define_axes(live)
    history = History(live)
    for row in rows:
        history.send(row.step, row.section, row.metrics)
    finish(live, content, ending)


if __name__ == "__main__":
    _write(*read_request())
