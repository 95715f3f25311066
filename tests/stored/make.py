"""Makes the stored files of the present version: ``python -m tests.stored.make tests/stored/vN``.

What is stored is what a user may have lying around: a sweep of two runs, one finished and one stopped on its
way, a manifest of degraded pairs, and the whole configs of other kinds of run. The folder it was made in is
written as ``@ROOT@``; ``place`` puts another in.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFilter

from qhk.cli.job import prepare
from qhk.cli.main import main as qhk
from qhk.settings.parse import plain_settings
from tests.conftest import repository_catalogue

ROOT, HOST = "@ROOT@", "stored-host"
TEXT = {".json", ".jsonl", ".yaml", ".txt", ".log", ".csv", ""}
STEPS = 12
SIDE = 32


def words(root: Path) -> list[str]:
    """Return the command line of a very small run that has both modules, a cold start and a reference."""
    return [
        "training=debug",
        f"training.duration.steps={STEPS}",
        f"training.validate_every={STEPS}",
        f"training.checkpoint_every={STEPS}",
        "training.prompts_per_step=2",
        "training.prompts_per_device=2",
        "training.threads=1",
        "rollout.max_new_tokens=14",
        "cold_start.steps=300",
        "cold_start.batch_size=4",
        "cold_start.lr=1e-2",
        "cold_start.num_examples=8",
        "cold_start.validate_every=300",
        "evaluation=greedy",
        "evaluation.bootstrap=0",
        "model.min_pixels=1024",
        "model.max_pixels=1024",
        *(f"model.tiny.{key}=8" for key in ("vision_hidden", "vision_mlp", "hidden", "mlp")),
        *(f"model.tiny.{key}=1" for key in ("vision_depth", "vision_heads", "depth", "heads", "kv_heads")),
        "model.tiny.whitening_images=4",
        "uncertainty.history_decay=0.5",
        *photos(root),
        *paths(root),
        "tracking=none",
    ]


def paths(root: Path) -> list[str]:
    return [f"paths.outputs={root}/outputs", f"paths.cache={root}/cache"]


def photos(root: Path) -> list[str]:
    """Return the words that name the stored pictures as data and benchmark."""
    return [
        "data=folder",
        "loading.workers=0",
        "benchmark=folder",
        f"dataset.folder.root={root}/photos",
        "dataset.folder.options.score_column=mos",
        "dataset.folder.bounds=[0,1]",
        "dataset.folder.higher_is_better=true",
    ]


SWEEP, FINISHED, STOPPED = "stored", "g2", "g4"
CONFIGS = {
    "mixture": ["experiment=q_insight", "scale=miniature"],
    "two_stages": ["stages=scores_then_comparisons", "scale=miniature"],
    "full_size": ["experiment=q_hawkeye", "twin=manifest", "twin.manifest=pairs.jsonl"],
    "release": ["experiment=q_hawkeye_release", "scale=miniature"],
    "video": ["experiment=preresq_r1_vqa", "model.path=last"],
}
"""Other kinds of run, of which the config alone is stored."""


def draw_photos(folder: Path) -> None:
    """Draw sixteen pictures, the lower the opinion the more blurred, with their opinions and splits."""
    (folder / "images").mkdir(parents=True)
    rows = ["image,mos,split"]
    for number in range(16):
        picture = Image.new("RGB", (SIDE, SIDE), (60 + 10 * number, 90, 200 - 10 * number))
        draw = ImageDraw.Draw(picture)
        draw.rectangle((number, 6, number + 12, 22), fill=(230, 220, 40))
        draw.ellipse((14, number, 28, number + 12), fill=(30, 30, 30 + 10 * number))
        quality = (number % 8 + 1) / 8
        name = f"{number:02d}.png"
        picture.filter(ImageFilter.GaussianBlur(3 * (1 - quality))).save(folder / "images" / name)
        rows.append(f"{name},{quality},{['train', 'train', 'val', 'test'][number // 4]}")
    (folder / "labels.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")


def run_sweep(root: Path) -> None:
    """Run the two cells, and stop the second after some of its steps."""
    stopped = root / "outputs" / SWEEP / STOPPED / "seed0"
    watcher = threading.Thread(target=_stop, args=(stopped,), daemon=True)
    watcher.start()
    code = qhk(
        [
            "train",
            "sweep=group_size",
            f"study={SWEEP}",
            "sweep.seeds=[0]",
            "~sweep.cells.g8",
            "~sweep.cells.g16",
            *words(root),
        ]
    )
    assert code == 3, code
    status = json.loads((stopped / "status.json").read_text(encoding="utf-8"))
    assert status["state"] == "preempted" and 0 < status["step"] < STEPS, status


def _stop(directory: Path) -> None:
    metrics = directory / "metrics.jsonl"
    while not metrics.is_file() or metrics.read_text(encoding="utf-8").count("train/loss/total") < 3:
        time.sleep(0.01)
    status = json.loads((directory / "status.json").read_text(encoding="utf-8"))
    os.kill(status["pid"], signal.SIGTERM)


def make_pairs(root: Path) -> None:
    """Degrade the pictures, judge the pairs, and degrade again where they look alike; none is built yet."""
    pairs = [*photos(root), *paths(root), "loading.limit=4", "pairs.workers=0"]
    for step in (["degrade"], ["filter", "pairs.filter.threshold=0.8"], ["strengthen"]):
        assert qhk(["data", step[0], *pairs, *step[1:]]) == 0


def write_configs(folder: Path) -> None:
    """Write the whole config of each of ``CONFIGS`` as a run directory holds it."""
    folder.mkdir()
    catalogue = repository_catalogue()
    for name, changes in CONFIGS.items():
        plain = plain_settings(prepare("train", [*changes, f"name={name}"], catalogue).settings)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")


def rewrite(folder: Path, changes: dict[str, str]) -> None:
    """Replace texts in all text files below ``folder``, and the sizes that checkpoints note of theirs."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    for file in files:
        if file.suffix in TEXT:
            text = file.read_text(encoding="utf-8")
            for old, new in changes.items():
                text = text.replace(old, new)
            file.write_text(text, encoding="utf-8")
    for file in files:
        if file.name == "sizes.json":
            sizes = {name: (file.parent / name).stat().st_size for name in json.loads(file.read_text())}
            file.write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


def place(version: Path, root: Path) -> None:
    """Copy the stored files of a version to ``root``, an empty folder, as if they had been made there."""
    shutil.copytree(version, root, symlinks=True, dirs_exist_ok=True)
    rewrite(root, {ROOT: str(root)})


def store(root: Path, target: Path) -> None:
    """Copy what was made in ``root`` to ``target``, without what can be made again."""
    sweep = root / "outputs" / "sweeps" / SWEEP
    manifest = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))
    for run in manifest["runs"]:
        run["code"] = "any"
    (sweep / "sweep.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(root / "outputs" / SWEEP / FINISHED / "seed0" / "checkpoints" / "step_000000")
    dropped = shutil.ignore_patterns("cache", "code", ".*", "*.lock", "console.log", "wandb")
    shutil.copytree(root, target, symlinks=True, ignore=dropped)
    package = str(Path(__file__).resolve().parents[2])
    status = json.loads((root / "outputs" / SWEEP / STOPPED / "seed0" / "status.json").read_text())
    rewrite(target, {str(root): ROOT, package: "/qhk", platform.node(): HOST, status["machine"]: HOST})


def main(target: Path) -> None:
    """Make everything in a temporary folder and store it in ``target``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        os.chdir(root)
        draw_photos(root / "photos")
        run_sweep(root)
        make_pairs(root)
        write_configs(root / "configs")
        store(root, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
