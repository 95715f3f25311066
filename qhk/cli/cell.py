"""The process of one run of a sweep: ``python -m qhk.cli.cell CONFIG CODE`` trains by frozen settings.

CODE is the digest that the run's code had when the sweep was submitted (the package and the user's own
modules that it takes rewards from), or ``any``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from qhk.cli.process import let_idle_threads_sleep, quiet_libraries, report
from qhk.errors import UserError
from qhk.settings.parse import read_settings
from qhk.settings.views import reward_modules
from qhk.sweep.manifest import ANY_CODE
from qhk.tracking.code import PACKAGE, run_code


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code of ``qhk train``; 2 where the code is not the one that was submitted."""
    let_idle_threads_sleep()
    config, code = sys.argv[1:] if argv is None else argv
    return report(lambda: _main(Path(config), code))


def _main(config: Path, code: str) -> int:
    settings = read_settings(config)
    found = run_code(settings)
    if code not in (found, ANY_CODE):
        what = " or ".join([str(PACKAGE), *sorted(reward_modules(settings))])
        raise UserError(
            f"{what} has changed since the sweep was submitted ({code[:12]}, now {found[:12]}): "
            "qhk sweep resume NAME code=current takes the new code"
        )
    quiet_libraries()
    from qhk.training.launch import launch

    return launch(settings)


if __name__ == "__main__":
    sys.exit(main())
