"""``qhk data check`` as a user types it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.words import last_of_each

Run = Callable[..., tuple[int, str, str]]
COLUMNS = [
    "dataset.folder.options.score_column=mos",
    "dataset.folder.bounds=[0,1]",
    "dataset.folder.higher_is_better=true",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "a set"
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate("abcd"):
        Image.new("RGB", (40, 40), (60 * number, 0, 0)).save(folder / "images" / f"{name}.png")
    rows = "image,mos,split\na.png,0.1,train\nb.png,0.5,train\nc.png,0.7,train\nd.png,0.9,test\n"
    (folder / "labels.csv").write_text(rows)
    return folder


def test_a_whole_set(qhk: Run, root: Path) -> None:
    code, out, err = qhk("data", "check", "benchmark=folder", f'root="{root}"', *COLUMNS)
    assert (code, err) == (0, "checking folder: 4/4\n") or (code, err) == (0, "")
    assert "train 3, test 1" in out and "folder: fingerprint " in out and "error" not in out


def test_a_broken_set_ends_in_code_2_and_a_list_of_everything(qhk: Run, root: Path) -> None:
    (root / "images" / "a.png").unlink()
    (root / "images" / "b.png").unlink()
    (root / "images" / "c.png").write_bytes(b"")
    code, out, _ = qhk("data", "check", "data=folder", f'root="{root}"', "paths.cache=cache", *COLUMNS)
    assert code == 2
    assert "error: folder: images of labels: 2 rows have no image of their own" in out
    assert "error: folder: unreadable images: first" in out and "fingerprint" not in out
    stored = json.loads(Path("cache/checks/folder.json").read_text())
    assert stored["failed"] is True and stored["fingerprint"] is None
    details = {found["subject"]: found["details"] for found in stored["findings"]}
    assert len(details["images of labels"]) == 2 and "c.png" in details["unreadable images"][0]
    assert "cache/checks/folder.json" in out


def test_root_stands_for_one_set(qhk: Run) -> None:
    code, _, err = qhk("data", "check", "benchmark=[csiq,koniq]", "root=/data")
    assert code == 2 and "root: /data stands for one set, but 2 are named (csiq, koniq)" in err


def test_what_the_command_line_names_is_checked_and_else_what_an_experiment_reads(qhk: Run) -> None:
    _, out, _ = qhk("data", "check", "benchmark=csiq", "paths.datasets=/none")
    assert "csiq" in out and "miniature" not in out
    code, out, _ = qhk("data", "check", "experiment=q_hawkeye", "paths.datasets=/none")
    assert code == 2 and all(f"error: {name}: layout" in out for name in ("koniq", "tid2013", "pipal"))


def test_null_root_is_one_line(qhk: Run) -> None:
    code, out, err = qhk("data", "check", "benchmark=folder")
    assert (code, out) == (2, "") and "dataset.folder.root is null" in err and err.count("\n") == 1


@pytest.mark.parametrize("fault", ["unreadable", "copied", "missing", "label"])
def test_training_refuses_what_a_check_finds_before_anything_is_loaded(
    qhk: Run, root: Path, tmp_path: Path, fault: str
) -> None:
    images = root / "images"
    message = {
        "unreadable": "b.png: not a readable image",
        "copied": "d.png has the bytes of",
        "missing": "labels.csv line 3: no image 'b.png' below",
        "label": "labels.csv line 5: mos is 'good', not a number",
    }[fault]
    if fault == "unreadable":
        (images / "b.png").write_bytes(b"no picture")
    elif fault == "copied":
        (images / "d.png").write_bytes((images / "a.png").read_bytes())
    elif fault == "missing":
        (images / "b.png").unlink()
    else:
        table = root / "labels.csv"
        table.write_text(table.read_text().replace("0.9", "good"))
    words = [
        "data=folder",
        "benchmark=folder",
        f'dataset.folder.root="{root}"',
        "loading.validation_fraction=0.0",
    ]
    code, out, err = qhk("train", *words, *COLUMNS)
    assert code == 2 and message in err and err.strip().count("\n") <= 1
    assert not list((tmp_path / "outputs").glob("default/**/config.yaml"))
    if fault != "copied":  # which only whole files can tell
        code, out, err = qhk("train", *words, *COLUMNS, "dry_run=true")
        assert code == 2 and message in err and "for 1 reason;" in out, err


def test_options_are_named_by_their_whole_key(qhk: Run, root: Path) -> None:
    words = ("data", "check", "benchmark=folder", f'root="{root}"', *COLUMNS, "paths.cache=cache")
    _, out, err = qhk(*last_of_each([*words, "dataset.folder.options.score_column=null"]))
    assert "dataset.folder.options.score_column must be given as text" in out + err


def test_a_dry_run_names_a_directory_that_the_run_could_not_go_on_in(qhk: Run, root: Path) -> None:
    """A set of another root, or of other labels, under the same name: what the run would refuse."""
    words = [
        "data=folder",
        "benchmark=folder",
        f'dataset.folder.root="{root}"',
        "loading.validation_fraction=0.0",
    ]
    settings_words = ("train", *words, *COLUMNS, "dry_run=true")
    code, out, err = qhk(*settings_words)
    assert code == 0, err
    directory = Path(re.search(r"directory  (\S+)", out)[1])  # type: ignore[index]
    number = re.search(r"run id     (\S+)", out)[1]  # type: ignore[index]
    directory.mkdir(parents=True)
    (directory / "run_id").write_text(number)
    hardware = dict.fromkeys(("packages", "hardware"), {})
    made = {"code_digest": "c", "data_fingerprints": {"folder": "other"}, "accelerators": [], **hardware}
    (directory / "provenance.json").write_text(json.dumps({**made, "python": "3", "threads": 1}))
    code, _, err = qhk(*settings_words)
    assert code == 2 and "data folder changed since: to train anew, choose another name= or" in err, err
    assert qhk(*settings_words, "fresh=true")[0] == 0
