"""``python -m qhk`` and ``torchrun -m qhk``: the console script by its module."""

from __future__ import annotations

import sys

from qhk.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
