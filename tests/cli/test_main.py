"""The command line as a user types it: exit codes, one line per mistake, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qhk.cli.command import Job
from qhk.cli.commands import COMMANDS
from qhk.cli.commands.score import ScoreRequest
from qhk.training import launch
from qhk.types import Completion, Example

Run = Callable[..., tuple[int, str, str]]

MISTAKES = [
    (["trian"], "did you mean train?"),
    (["train", "modell=tiny"], "did you mean model?"),
    (["train", "model=tinny"], "did you mean model=tiny?"),
    (["train", "model=null"], "model has no option 'null'"),
    (["train", "experiment=q_hawkey"], "did you mean experiment=q_hawkeye?"),
    (["train", "optimizer.learning_rate=1e-4"], "did you mean optimizer.lr?"),
    (["train", "+optimizer.rate=1e-4"], "optimizer.rate: unknown key"),
    (["train", "optimizer.lr=-1.0"], "optimizer.lr: must be greater than 0, got -1.0"),
    (["train", "optimizer.lr=fast"], "optimizer.lr: must be a number, got 'fast'"),
    (["train", "seed=0,1"], "add -m"),
    (["train", "benchmark=[koniq,", "spaq]"], "quote the whole argument"),
    (["train", "benchmark=[koniq"], "unbalanced brackets"),
    (["train", "study=a:b=c"], "quote the value twice"),
    (["train", "=3"], "nothing stands before '='"),
    (["train", "stray"], "write key=value"),
    (["train", "--quick"], "unknown flag"),
    (["train", "--cfg", "jobs"], "invalid choice: 'jobs' (choose from 'job', 'hydra', 'all')"),
    (["train", "~seed"], "seed: missing"),
    (["train", "+seed=1"], "seed is there already; write seed=1"),
    (["train", *["~evaluation.readouts.greedy"] * 2], "readouts.greedy is deleted already; leave this out"),
    (
        ["train", "evaluation.readouts.greedy.num_samples=1", *["~evaluation.readouts.greedy"] * 2],
        "qhk: ~evaluation.readouts.greedy: evaluation.readouts.greedy is deleted already",
    ),
    (["train", "~evaluation.readouts", "~evaluation.readouts.greedy"], "readouts.greedy is deleted already"),
    (["train", "~framing.side"], "~framing.side: framing.side is null, so there is nothing to delete"),
    (["train", "~seed=7"], "~seed=7: seed has another value; write ~seed"),
    (["train", "data=kadidd"], "data: no set is called 'kadidd'; did you mean kadid?"),
    (["train", "benchmark=[koniq,spak]"], "benchmark: no set is called 'spak'; did you mean spaq?"),
    (["train", "data=[koniq,{koniq:2}]"], "data: names koniq twice"),
    (["train", "data={koniq:0}"], "data.koniq: must be greater than 0"),
    (["train", "data={}"], "data: must not be empty"),
    (["train", "dataset=koniq"], "write data=koniq or benchmark=koniq"),
    (["train", "+strengths.nope=1"], "no option in use refers to it"),
    (["train", "perception=none", "strengths.perception_gamma=1"], "no option in use refers to it"),
    (["train", "strengths.nope=1"], "known: group_size, kl_coef, lora_lr_factor, "),
    (["train", "experiment=q_insight", "mixture.degradation.looding=1"], "known: benchmark, data, prompt"),
    (["train", "data.limit=6"], "write loading.limit=6"),
    (["train", "mixture.x.data.limit=6"], "for this part alone, add +loading@mixture.x.loading=default and"),
    (["train", "data.sets.koniq=6"], "write all of it, e.g. 'data=[{koniq:6}]'"),
    (["train", "benchmark.limit=3"], "write all of it, e.g. 'benchmark=[{koniq:{limit:3}}]'"),
    (["train", "~data.koniq"], "write those to keep, e.g. 'data=[koniq]'"),
    (["train", "benchmark.koniq.limit=3"], "write all of it, e.g. 'benchmark=[{koniq:{limit:3}}]'"),
    (
        ["train", "benchmark={koniq:{limt:3}}"],
        "benchmark.koniq.limt: unknown key, got 3; did you mean limit?",
    ),
    (["train", "prompt.user=${nowhere}"], "'nowhere' not found"),
    (["train", "reward.terms.accuracy.tau=-1"], "reward.terms.accuracy.tau: got -1; give a number > 0"),
    (["train", "task.answer_rule=loose"], "task.answer_rule: unknown rule 'loose'"),
    (["train", "hydra/launcher=nowhere"], "no option 'nowhere'"),
    (["train", "-m", "uncertainty=glob(zz*)"], "matches nothing"),
    (["train", "-m", "seed=0,-1"], "seed: must be a whole number of at least 0, got -1"),
    (["train", "sweep=modles"], "did you mean sweep=modules?"),
    (["train", "sweep=modules", "name=x"], "study=NAME names the sweep"),
    (["train", "sweep=modules", "sweep.seeds=[0,0]"], "sweep.seeds must differ"),
    (["train", "sweep=modules", "hydra.launcher.jobs=0"], "hydra.launcher.jobs: must be greater than or"),
    (["train", "sweep=modules", "optimizer.lr=-1"], "cell full: optimizer.lr: must be greater than 0"),
    (
        ["train", "objective=cispo", "objective=gdpo"],
        "objective=gdpo: objective=cispo stands beside it; keep",
    ),
    (
        ["train", "model=hugging_face"],
        "model.path: is null; give a folder with weights or a hub id: model.path=",
    ),
    (["train", "seed=1", "dry_run=true", "+seed=2"], "+seed=2: seed=1 stands beside it; keep one of them"),
    (["train", "reward.terms.format.weight=2", "~reward.terms.format.weight"], "weight=2 stands beside it"),
    (["train", "sweep=modules", "study=a", "study=b"], "study=b: study=a stands beside it"),
    (["train", "-m", "seed=0,1", "seed=2"], "seed=2: seed=0,1 stands beside it"),
    (["runs", "list", "format=csv", "format=json"], "format=json: format=csv stands beside it"),
    (
        ["train", "sweep=modules", '+sweep.cells.mine=["optimizer.lr=1e-3","optimizer.lr=1e-4"]'],
        "cell mine: optimizer.lr=1e-4: optimizer.lr=1e-3 stands beside it",
    ),
    (["evaluate", "sweep=modules"], "sweep=modules: has no effect on qhk evaluate"),
    (["sweep", "status"], "qhk sweep status: give one NAME, got 0; e.g. qhk sweep status modules"),
    (["sweep", "logs", "a", "b"], "give one NAME, got 2"),
    (["sweep", "status", "nothing"], "nothing: no such sweep"),
    (["train", "model=qwen2_5_vl_7b"], "choose optimizer=adamw_stochastic, or model.dtype=float32"),
    (["data"], "data: no such command; did you mean data check?"),
    (["data", "chekc"], "did you mean data check?"),
    (["data", "check", "images=all"], "images: must be one of 'decode', 'header', 'skip', got 'all'"),
    (["score", "checkpoint=x"], "qhk score: give at least one IMAGE, got 0; e.g. qhk score photo.jpg"),
    (
        ["train", "task=degradation", "prompt=degradation_short", "reward=visualquality_r1"],
        "reward.terms.fidelity: compares scores, but task.form degradation is answered in words",
    ),
    (
        ["train", "task=degradation", "prompt=degradation_short", "reward=q_insight_degradation"],
        "task.form degradation is answered in words; choose uncertainty=none",
    ),
    (
        ["train", "uncertainty.answer_rule=loose"],
        "uncertainty.answer_rule: loose reads no answers of task.form",
    ),
    (["score", "a.png", "task=comparison", "prompt=comparison"], "prompt.user shows 3 pictures"),
    (["score", "a.png", "task=video", "prompt=video"], "prompt.user shows 4 pictures"),
    (["score", "a.png", "num_samples=0"], "num_samples: must be greater than or equal to 1, got 0"),
    (["score", "a.png", "format=xml"], "format: must be one of 'table', 'json', 'csv', got 'xml'"),
]


@pytest.mark.parametrize(("words", "part"), MISTAKES)
def test_mistake_is_one_line_and_exit_code_2(words: list[str], part: str, qhk: Run, tmp_path: Path) -> None:
    code, out, err = qhk(*words)
    assert code == 2
    assert out == ""
    assert part in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_identity_and_leaves_nothing(qhk: Run, tmp_path: Path) -> None:
    code, out, err = qhk("train", "dry_run=true")
    assert (code, err) == (0, "")
    assert "directory  outputs/default/default/seed0" in out
    assert "time       about " in out and " s of one CPU core a step, estimated" in out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_another_command_names_no_training(qhk: Run, tmp_path: Path) -> None:
    code, out, err = qhk("evaluate", "checkpoint=x", "dry_run=true")
    assert (code, err) == (2, "error: checkpoint: x is not there\n")
    assert list(tmp_path.iterdir()) == []
    assert out == "dry run: a run would be refused, for 1 reason; nothing was started\n"


def test_dry_run_fails_where_files_are_missing(qhk: Run) -> None:
    code, out, err = qhk("train", "experiment=q_hawkeye", "dry_run=true", "model.path=./weights")
    assert code == 2
    assert "error: dataset.koniq.root:" in err
    assert "error: model.path: ./weights is not there" in err
    assert "run id" in out and "a run would be refused, for " in out


CSIQ = "data=miniature_csiq"
"""A set that is drawn in half a second, with labels."""


def ending(completion: Completion, example: Example, *, how: str) -> Any:
    """A user's reward that gives what it should not."""
    if how == "exit":
        sys.exit(0)
    return {"text": "high", "nothing": None, "labels": len(example.labels["appearance"])}[how]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["paths.outputs=/dev/null"],
            ["(/dev/null is no folder): change paths.outputs", "change paths.cache"],
        ),
        ([f"name={'n' * 300}"], ["has 300 bytes, the most is 255): change paths.outputs, study or name"]),
        (
            ["how=exit", CSIQ],
            ["mine: does not fit task.form score with answer_rule strict: raised SystemExit: 0"],
        ),
        (["how=text", CSIQ], ["gave 'high' for "]),
        (["how=nothing", CSIQ], ["gave None for "]),
        (["how=labels", CSIQ], []),
    ],
)
def test_dry_run_tries_what_a_run_would_refuse(
    qhk: Run, tmp_path: Path, words: list[str], lines: list[str]
) -> None:
    """Places that cannot be, and rewards on true answers, with the labels of the set that they ask for."""
    how, _, value = words[0].partition("=")
    if how == "how":
        term = f"+reward.terms.mine={{_target_: tests.cli.test_main.ending, weight: 1.0, how: {value}}}"
        words = [term, *words[1:]]
    code, out, err = qhk("train", "dry_run=true", *words)
    assert code == (2 if lines else 0)
    found = err.splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith("error: ") and part in line for line, part in zip(found, lines, strict=True))
    assert list(tmp_path.iterdir()) == []


def test_a_run_refuses_places_that_cannot_be_before_it_loads_anything(
    qhk: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "load_stages", lambda *words: pytest.fail("loaded"))
    (tmp_path / "file").write_text("")
    for words in (["paths.outputs=file"], [f"name={'n' * 300}"], ["paths.cache=file/cache"]):
        code, _, err = qhk("train", *words)
        assert code == 2 and err.count("\n") == 1 and "cannot be written (" in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_cfg_job_prints_the_composition(qhk: Run) -> None:
    code, out, _ = qhk("train", "seed=3", "--cfg", "job")
    assert code == 0
    assert "\nseed: 3\n" in f"\n{out}"
    assert "cache: ${paths.outputs}/cache" in out
    assert "hydra:" not in out
    assert "cache: outputs/cache" in qhk("train", "--cfg=job", "--resolve")[1]


def test_help_names_commands_groups_options_and_experiments(qhk: Run) -> None:
    code, out, _ = qhk("--help")
    assert code == 0
    assert all(command in out for command in ("qhk train", "qhk evaluate", "qhk score IMAGE..."))
    assert qhk()[1] == out
    code, out, _ = qhk("train", "--help")
    assert code == 0
    for word in ("uncertainty", "exponential", "q_hawkeye_release", "miniature", "dry_run=true"):
        assert word in out
    assert out.count("\n  qhk train") == 3


def test_help_has_a_commands_own_keys_and_groups_only_where_they_count(qhk: Run) -> None:
    out = qhk("report", "--help")[1]
    assert "  reference: null     # the method that others are held against" in out
    assert "cold_start" not in out and "dry_run" not in out
    out = qhk("score", "--help")[1]
    assert "  num_samples: 8" in out and "Groups and their options:" in out
    assert "Keys of this command" not in qhk("train", "--help")[1] + qhk("runs", "list", "--help")[1]


def _replace_run(monkeypatch: pytest.MonkeyPatch, command: str, run: Callable[[Job[Any]], int]) -> None:
    monkeypatch.setitem(COMMANDS, command, replace(COMMANDS[command], run=run))  # type: ignore


def test_positionals_reach_score_and_overrides_do_not(qhk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job[ScoreRequest]] = []
    _replace_run(monkeypatch, "score", lambda job: len(seen.append(job) or ""))
    code, _, err = qhk("score", "a.png", "checkpoint=x", "b c.png", "format=json", "num_samples=3")
    assert (code, err) == (0, "")
    assert seen[0].positionals == ("a.png", "b c.png")
    assert (seen[0].request.format, seen[0].request.num_samples) == ("json", 3)
    assert seen[0].settings.checkpoint == "x"


def test_internal_error_keeps_its_traceback(qhk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace_run(monkeypatch, "train", lambda job: int(json.loads("[1, 2]")[5]))
    code, _, err = qhk("train")
    assert code == 1
    assert "Traceback" in err
    assert "IndexError" in err


def test_value_error_of_a_library_is_not_a_users_mistake(qhk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _replace_run(monkeypatch, "train", lambda job: len(json.loads("{")))
    code, _, err = qhk("train")
    assert code == 1
    assert "Traceback" in err


def test_job_is_what_the_dispatch_hands_on(qhk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job[None]] = []
    _replace_run(monkeypatch, "train", lambda job: seen.append(job) or 7)
    assert qhk("train", "experiment=q_hawkeye", "scale=miniature", "seed=4")[0] == 7
    assert seen[0].settings.name == "q_hawkeye__scale-miniature"
    assert seen[0].overrides == ("experiment=q_hawkeye", "scale=miniature", "seed=4")


def test_real_process_from_another_directory(tmp_path: Path) -> None:
    """The composition is found from anywhere, and nothing heavy is imported to check a run."""
    root = Path(__file__).parents[2]
    code = (
        "import sys\nfrom qhk.cli.main import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'wandb'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    words = [sys.executable, "-c", code, "train", "dry_run=true"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run id" in done.stdout
    assert list(tmp_path.iterdir()) == []
