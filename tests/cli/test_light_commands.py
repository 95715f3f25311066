"""Commands that only look import no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "pandas", "scipy", "datasets", "wandb")

SCRIPT = """
import sys
from qhk.cli.main import main
for words in (["--version"], ["--help"], *([*c.split(), sys.argv[1]] for c in sys.argv[2:])):
    main(words)
    print("heavy:", words, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


def test_light_commands_import_no_heavy_library(tmp_path: Path) -> None:
    commands = ["sweep status", "sweep logs", "sweep cancel", "sweep resume", "data review"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(heavy=HEAVY), str(tmp_path / "none"), *commands],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("heavy:")]
    assert len(lines) == 2 + len(commands), done.stderr
    assert all(line.endswith("[]") for line in lines), lines


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qhk", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("qhk ")
