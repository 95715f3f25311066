"""Commands that only look compose no training config and import no heavy library; ``python -m qhk`` works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from qhk.tracking.status import RunState
from tests.pairs.review.conftest import write_pairs
from tests.sweep.builders import MakeSweep, set_status

HEAVY = ("torch", "transformers", "pandas", "scipy", "datasets", "wandb")

SCRIPT = f"""
import json, sys
from qhk.cli.main import main

for words in (["--version"], ["--help"]):
    print(json.dumps([words, main(words), [], [name for name in {HEAVY} if name in sys.modules]]))

from qhk.config import compose

real, composed = compose.compose_config, []

def recorded(command, *rest):
    composed.append(command)
    return real(command, *rest)

compose.compose_config = recorded
for words in json.loads(sys.argv[1]):
    code = main(words)
    print(json.dumps([words, code, composed, [name for name in {HEAVY} if name in sys.modules]]))
    composed.clear()
"""
"""Prints each command's words and exit code, the commands composed, the heavy libraries imported so far."""


def test_light_commands_stay_light(make_sweep: MakeSweep, tmp_path: Path) -> None:
    """On a sweep that is there, so that each goes all its way; the review up to its queue."""
    set_status(make_sweep("a").runs[0], RunState.DONE)
    pairs = write_pairs(tmp_path / "set", 2)
    commands = [
        ["sweep", "status", "s"],
        ["sweep", "logs", "s", "cell=a"],
        ["sweep", "cancel", "s"],
        ["sweep", "resume", "s"],
        ["data", "review", f"pairs.manifest={pairs}", "types=[haze]"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    assert [words for words, *_ in found] == [["--version"], ["--help"], *commands], done.stderr
    assert "nothing to start" in done.stdout and "no pair of type 'haze'" in done.stderr
    for words, code, composed, heavy in found:
        assert code == (2 if words[0] == "data" else 0), (words, done.stderr)
        assert composed == ([] if len(words) == 1 else [" ".join(words[:2])]), words
        assert heavy == [], words


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "qhk", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("qhk ")
