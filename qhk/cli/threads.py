"""How the threads of numerical libraries wait for each other."""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
"""The setting of the OpenMP standard, and what GNU's library (in torch's wheels) and Intel's call theirs."""


def let_idle_threads_sleep() -> None:
    """Let threads that wait for work give up their core. To be called before anything loads torch.

    OpenMP reads the setting once, when it is loaded. By default its threads spin between two pieces of work,
    which is a little faster on idle cores, but where other work needs these cores every piece waits for a
    thread that has lost its turn to a spinning one, and runs slow each other by a factor of five to ten. No
    result depends on it. A setting of the user's stands.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
