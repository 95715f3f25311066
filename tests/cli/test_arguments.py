"""``~`` is the home directory wherever a path is given, as a shell's user expects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.cli.arguments import read_arguments

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("word", ["paths.outputs=~/kept here", "paths.outputs='~/kept here'"])
def test_runs_below_the_home_directory(
    qhk: Run, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, out, err = qhk("train", word, "dry_run=true")
    assert code == 0, err
    assert f"directory  {tmp_path}/home/kept here/default/default/seed0" in out


def test_a_home_is_written_out_before_hydra_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    words = ["train", "model.path=~/m", "+x=~", "~optimizer.lr", "a=b~/c", "benchmark=[~/a]"]
    assert read_arguments(words).overrides == (
        "model.path=/home/u/m",
        "+x=/home/u",
        "~optimizer.lr",
        "a=b~/c",
        "benchmark=[~/a]",
    )


@pytest.mark.parametrize(
    "word", ["paths.cache=~nobody_of_that_name/x", 'paths.cache="~nobody_of_that_name/x"']
)
def test_the_home_of_nobody_is_one_line(qhk: Run, word: str) -> None:
    code, _, err = qhk("train", word, "dry_run=true")
    assert code == 2 and err.count("\n") == 1
    assert "~nobody_of_that_name/x: no home directory of that name; write the path out" in err
