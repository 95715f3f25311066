"""What users of Hydra know works here: flags, own folders, completion; what cannot is refused in one line."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from qhk.cli.completion import complete
from qhk.cli.process import WAITING
from qhk.config.catalogue import config_root

Run = Callable[..., tuple[int, str, str]]


def test_a_flag_that_other_programs_have_is_shown_as_an_override(qhk: Run) -> None:
    assert qhk("train", "--seed", "3")[2] == "qhk: --seed: settings have no dashes; write seed=3\n"
    assert "write training.threads=1" in qhk("train", "--training.threads=1")[2]
    assert "did you mean --cfg?" in qhk("train", "--cgf")[2]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("+uncertainty=none", "uncertainty has an option already; write uncertainty=none"),
        ("~uncertainty", "every run has its uncertainty; write uncertainty=none"),
        ("~model", "every run has its model; known: checkpoint, "),
        ("name=Zürich", "quotes, for the shell and for Hydra: 'name=\"Zürich\"'"),
        ("hydra.run.dir=x", "has no effect here; a run lies in paths.outputs/study/name/seedN"),
        ("hydra.sweep.subdir=x", "has no effect here; a run lies in"),
        ("hydra/sweeper=basic", "has no effect here; write the values as key=a,b,c with -m"),
        ("+hydra.sweeper.params.seed=1", "has no effect here; write the values"),
        ("hydra.job.chdir=true", "has no effect here; a run stays in the current directory"),
        ("hydra/job_logging=none", "has no effect here; hydra.verbose=true"),
        ("hydra.job.env_set.A=1", "has no effect here; only hydra/launcher, hydra.launcher, hydra.verbose"),
        ("hydra.searchpath=[pkg://mine]", "pkg://mine is no folder; write file:///path/to/folder"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(qhk: Run, word: str, told: str) -> None:
    code, out, err = qhk("train", word, "dry_run=true")
    assert (code, out) == (2, "") and told in err and err.count("\n") == 1


def test_a_launcher_elsewhere_is_for_training_alone(qhk: Run) -> None:
    code, _, err = qhk("evaluate", "hydra/launcher=slurm")
    assert code == 2 and "hydra/launcher=slurm: qhk evaluate runs here" in err


def test_a_single_run_with_another_launcher_is_planned_for_it(qhk: Run) -> None:
    words = ("experiment=q_hawkeye", "scale=miniature", "seed=3", "hydra/launcher=slurm", "dry_run=true")
    code, out, err = qhk("train", *words)
    assert code == 0, err
    assert "1 cells, 1 runs" in out and "of one H200" in out
    single = qhk("train", *words[:3], "dry_run=true")[1].split()[2]
    assert single in out


def test_verbose_shows_where_a_mistake_was_found(qhk: Run) -> None:
    level = logging.getLogger().level
    try:
        err = qhk("train", "optimizer.nothing=1", "hydra.verbose=true")[2]
        assert logging.getLogger("qhk").isEnabledFor(logging.DEBUG)
    finally:
        logging.getLogger().setLevel(level)
    assert "Traceback" in err and err.endswith("known: betas, eps, form, lr, max_grad_norm, weight_decay\n")


def test_the_config_can_be_looked_at_in_parts(qhk: Run) -> None:
    assert qhk("train", "--cfg", "job", "-p", "lr_schedule.warmup")[1].startswith("steps:")
    hydra = qhk("train", "--cfg", "hydra")[1]
    assert (
        hydra.startswith("hydra:\n") and "launcher:" in hydra and "optimizer" not in hydra.split("choices")[0]
    )
    both = qhk("train", "--cfg", "all")[1]
    assert both.startswith("hydra:\n") and "\noptimizer:\n" in both
    assert qhk("train", "benchmark=[koniq]", "--cfg", "job", "-p", "benchmark")[1] == "- koniq\n"
    assert qhk("train", "--cfg", "job", "-p", "optimizer.form")[1] == "adamw\n"
    code, _, err = qhk("train", "--cfg", "job", "-p", "nothing")
    assert code == 2 and "--package nothing: no such node" in err
    assert "uncertainty/rank  ->  uncertainty" in qhk("train", "uncertainty=rank", "--info", "defaults")[1]
    assert qhk("--version")[1] == f"qhk {version('qhk')}\n"


def test_the_columns_of_help_are_aligned(qhk: Run) -> None:
    lines = qhk("train", "--help")[1].splitlines()
    rows = [line for line in lines if re.match(r"  (model|hydra/launcher|experiment|reward) ", line)]
    assert len({re.match(r"  \S+ +", line).end() for line in rows}) == 1 and len(rows) == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("words", [("-cd", "{}"), ("hydra.searchpath=[file://{}]",)])
@pytest.mark.parametrize("folder", ["experiments", "experiment"])
def test_own_files_lie_in_a_folder_of_ones_own(
    qhk: Run, tmp_path: Path, words: tuple[str, ...], folder: str
) -> None:
    own = tmp_path / "own"
    for group in (folder, "optimizer", "sweep"):
        (own / group).mkdir(parents=True)
    adamw = (config_root() / "conf/optimizer/adamw.yaml").read_text()
    (own / "optimizer/mine.yaml").write_text(adamw)
    (own / folder / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults: [q_hawkeye, override /optimizer: mine, _self_]\n"
        "optimizer: {lr: 0.5}\n"
    )
    (own / "sweep/mine.yaml").write_text(
        "# @package _global_\nsweep: {seeds: [0, 1], cells: {a: [], b: [optimizer.lr=0.1]}}\n"
    )
    given = [word.format(own) for word in words]
    out = qhk("train", *given, "experiment=mine", "--cfg", "job", "-p", "optimizer")[1]
    assert "lr: 0.5" in out
    assert "mine" in qhk("train", *given, "--help")[1]
    code, out, err = qhk("train", *given, "sweep=mine", "study=s", "dry_run=true")
    assert "2 cells, 4 runs" in out, err


def test_tab_completes_commands_groups_options_and_keys() -> None:
    assert complete("qhk tr") == ["train"]
    assert complete("qhk sweep ") == ["cancel", "logs", "resume", "status"]
    assert complete("qhk train optimi") == ["optimizer.", "optimizer="]
    assert complete("qhk train optimizer=adamw_s") == ["optimizer=adamw_stochastic"]
    assert complete("qhk train optimizer.l") == ["optimizer.lr="]
    assert complete("qhk train experiment=preresq_r1_i") == ["experiment=preresq_r1_iqa"]
    assert complete("qhk train data=koni") == ["data=koniq"]
    assert complete("qhk evaluate benchmark=[koniq,spa") == ["benchmark=[koniq,spaq"]
    assert complete("qhk sweep status watc") == ["watch="]
    assert complete("qhk train --inf") == ["--info"]


def test_tab_sees_the_flags_and_the_folders_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "ours.yaml").write_text("# @package _global_\n")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "our_photos.yaml").write_text("root: photos\n")
    assert complete("qhk train experiment=our") == []
    for flag in (f"-cd {tmp_path}", f"--config-dir={tmp_path}", f"hydra.searchpath=[file://{tmp_path}]"):
        assert complete(f"qhk train {flag} experiment=our") == ["experiment=ours"], flag
    assert complete(f"qhk -cd {tmp_path} -m train benchmark=our_") == ["benchmark=our_photos"]
    assert complete("qhk -m sweep lo") == ["logs"]
    assert complete("qhk --vers") == ["--version"]
    assert complete("qhk train --cfg ") == ["job", "hydra", "all"]
    assert complete("qhk train --info s") == ["searchpath"]
    assert complete("qhk train -cd ") == []  # The shell itself completes folders.


def test_flags_alone_are_no_command(qhk: Run) -> None:
    for words in (["-m"], ["--cfg", "job"], ["-cd", "."]):
        assert qhk(*words)[2].startswith(
            "qhk: no command; known: data, doctor, evaluate, export, report, runs, score, sweep, train; "
        ), words


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script(qhk: Run, tmp_path: Path) -> None:
    script = qhk("--shell-completion", "install=bash")[1]
    (tmp_path / "qhk").write_text(f'#!/bin/sh\nexec {sys.executable} -m qhk.cli.main "$@"\n')
    (tmp_path / "qhk").chmod(0o755)
    line = "qhk train hydra/launcher=s"
    typed = f'{script}\nCOMP_LINE="{line}"; COMP_POINT={len(line)}; _qhk; echo "${{COMPREPLY[*]}}"'
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(config_root())}
    done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == "hydra/launcher=slurm\n"


def test_threads_that_wait_sleep_before_torch_is_there() -> None:
    code = "import os, sys; from qhk.cli.main import main; main(['--version']); "
    code += "assert 'torch' not in sys.modules; "
    code += "print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'])"
    own = {key: value for key, value in os.environ.items() if key not in WAITING}
    for given, expected in (({}, "PASSIVE 3000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 3000")):
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env={**own, **given}, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[-1] == expected, done.stderr
