"""What a dry run finds in sets of Parquet files and of JSON rows: pictures that are missing or broken, labels
that changed since a run, and another set under the same run id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from qhk.cli.job import prepare
from qhk.config.catalogue import Catalogue
from qhk.data.datasets import load_dataset_entry
from qhk.errors import UserError
from qhk.policy.start import start_policy
from qhk.settings.identity import run_directory, run_id
from qhk.settings.root import Settings
from qhk.tracking import mirrors
from qhk.tracking.code import run_code
from qhk.tracking.provenance import gather_provenance, write_provenance
from qhk.training import libraries
from qhk.training.distributed import Processes
from qhk.training.dry_run import directory_problems, run_problems
from qhk.training.launch import check_processes
from qhk.training.libraries import library_problems

SCORES = (1.0, 2.0, 4.0)
PICTURES = tuple(f"images/{number}.png" for number, _ in enumerate(SCORES))


def write_pictures(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    for number, name in enumerate(PICTURES):
        Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(root / name)


def write_json(root: Path, scores: Sequence[float]) -> None:
    rows = [
        {"id": name, "images": [name.removeprefix("images/")], "gt_score": score}
        for name, score in zip(PICTURES, scores, strict=True)
    ]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_parquet(root: Path, scores: Sequence[float]) -> None:
    """The first picture lies in the table, the others are named by it."""
    file = BytesIO()
    Image.new("RGB", (40, 40), (0, 9, 0)).save(file, "PNG")
    cells: list[dict[str, object]] = [{"bytes": None, "path": str(root / name)} for name in PICTURES]
    cells[0] = {"bytes": file.getvalue(), "path": None}
    parquet.write_table(pyarrow.table({"image": cells, "mos": list(scores)}), root / "train.parquet")


WRITE = {"json_rows": write_json, "hugging_face": write_parquet}
WORDS = {
    "json_rows": ["dataset.json_rows.options.train_labels=rows.jsonl"],
    "hugging_face": ["dataset.hugging_face.options.score_column=mos", "dataset.hugging_face.bounds=[1,5]"],
}


def asked(name: str, root: Path, catalogue: Catalogue) -> Settings:
    """The settings of a run that trains on the set; the set is made at ``root``."""
    write_pictures(root)
    WRITE[name](root, SCORES)
    words = [f"data={name}", "benchmark=[]", f'dataset.{name}.root="{root}"', "loading.validation_fraction=0"]
    words += [f"dataset.{name}.higher_is_better=true", f"paths.outputs={root}/../outputs", *WORDS[name]]
    return prepare("train", [*words, f"paths.cache={root}/../cache"], catalogue).settings


@pytest.mark.parametrize("name", ["json_rows", "hugging_face"])
def test_a_dry_run_looks_at_pictures_and_labels_of_other_formats(
    name: str, tmp_path: Path, catalogue: Catalogue
) -> None:
    root = tmp_path / "a set"
    settings = asked(name, root, catalogue)
    assert run_problems(settings) == [] == directory_problems(settings)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "outputs").exists()

    picture = root / PICTURES[2]
    whole = picture.read_bytes()
    picture.write_bytes(b"no picture")
    (line,) = run_problems(settings)
    assert f"{picture}: not a readable image" in line and "\n" not in line
    Image.new("RGB", (4, 40)).save(picture)
    (line,) = run_problems(settings)
    assert f"{picture}: 4x40 is too small" in line
    picture.unlink()
    (line,) = run_problems(settings)
    where = "rows.jsonl row 3" if name == "json_rows" else "split train row 3"
    assert where in line and picture.name in line and line.startswith(f"dataset.{name}")
    picture.write_bytes(whole)

    WRITE[name](root, (1.0, 2.0, 9.0))
    (line,) = run_problems(settings)
    assert f"{where}: score 9.0 is outside bounds [1.0, 5.0]" in line


@pytest.mark.parametrize("name", ["json_rows", "hugging_face"])
def test_a_dry_run_tells_changed_labels_and_another_set_of_the_same_id(
    name: str, tmp_path: Path, catalogue: Catalogue
) -> None:
    """A run's id does not say where its sets lie: what tells two of them apart is what they hold."""
    root, other = tmp_path / "a set", tmp_path / "another set"
    settings, twin = asked(name, root, catalogue), asked(name, other, catalogue)
    assert (
        run_id(settings) == run_id(twin)
        and run_directory(settings).resolve() == run_directory(twin).resolve()
    )

    folder = run_directory(settings)
    folder.mkdir(parents=True)
    (folder / "run_id").write_text(run_id(settings))
    loaded = load_dataset_entry(
        name, settings.dataset[name], cache=Path(settings.paths.cache), progress=lambda done, total: None
    )
    made = {name: loaded.fingerprint}
    provenance = gather_provenance(
        code=run_code(settings), data_fingerprints=made, accelerators=[], threads=1
    )
    write_provenance(folder / "provenance.json", provenance)
    assert directory_problems(settings) == [] == directory_problems(twin), "the same rows at another place"

    refused = f"data {name} changed since: to train anew, choose another name= or"
    WRITE[name](other, (1.0, 2.0, 3.0))
    (line,) = directory_problems(twin)
    assert refused in line and directory_problems(settings) == []
    assert directory_problems(twin.model_copy(update={"fresh": True})) == []
    WRITE[name](root, (1.0, 2.0, 3.0))
    (line,) = directory_problems(settings)
    assert refused in line


def test_native_pixels_stay_native(catalogue: Catalogue) -> None:
    def settings(*framing: str) -> Settings:
        return prepare("train", ["model.min_pixels=1024", *framing], catalogue).settings

    fine = settings("framing=fragments", "framing.side=24", "framing.pieces=2")
    assert not [line for line in run_problems(fine) if "framing" in line]
    off = settings("framing=crop", "framing.side=40")
    (line,) = [line for line in run_problems(off) if "framing" in line]
    assert line == (
        "framing.side: 40 pixels a side would be resized, as the model's image tokens are 16 pixels wide; "
        "show 32 or 48"
    )
    with pytest.raises(UserError, match="40 pixels a side would be resized"):
        start_policy(off, [], stages=[off], device="cpu")


def test_libraries_of_extras_that_are_not_there_are_named(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a dry run, and by a run before its data: each with the way to get it."""
    words = ["distributed=zero2", "optimizer=adamw_stochastic", "tracking.trackio=true"]
    settings = prepare("train", words, catalogue).settings
    eight_bit = prepare("train", ["optimizer=adamw_8bit"], catalogue).settings
    assert library_problems(eight_bit) == []
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    monkeypatch.setattr(mirrors.importlib.util, "find_spec", lambda name: None)
    deepspeed, trackio = library_problems(settings)
    assert "zero2 needs deepspeed; install it with pip install 'qhk[cuda]'" in deepspeed
    assert "needs the extra trackio" in trackio
    (torchao,) = library_problems(eight_bit)
    assert "adamw_8bit needs torchao; install it with pip install 'qhk[eight_bit]'" in torchao
    assert torchao in run_problems(eight_bit)
    with pytest.raises(UserError, match="needs torchao"):
        check_processes(eight_bit, Processes("single"))
