"""How the threads of numerical libraries wait for each other."""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "0"}
"""The setting of the OpenMP standard, and what GNU's library (in torch's wheels) and Intel's call theirs."""


def let_idle_threads_sleep() -> None:
    """Let threads that wait for work soon give up their core. To be called before anything loads torch.

    OpenMP reads the setting once, when it is loaded. By default its threads spin between two pieces of work.
    Where other work needs these cores every piece then waits for a thread that has lost its turn to a
    spinning one, and runs slow each other by a factor of five to ten. To sleep at once costs a step on idle
    cores a half more. Some 3000 turns, about ten microseconds, bridge most gaps and hold no core for long. No
    result depends on it. A setting of the user's stands.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
