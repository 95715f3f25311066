"""What ends a command early never passes for success."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qhk.cli.process import report

Run = Callable[..., tuple[int, str, str]]
LONG = "n" * 300


def fork_and_leave() -> int:
    child = os.fork()
    if child == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("action", "code", "said"),
    [
        (lambda: sys.exit(0), 1, "qhk: exit was called with 0 (test_process.py line "),
        (lambda: sys.exit("why"), 1, "qhk: exit was called with 'why' (test_process.py line "),
        (fork_and_leave, 7, ""),
    ],
)
def test_an_exit_is_a_failure_with_its_place(
    action: Callable[[], int], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    leave = os._exit
    assert report(action) == code
    assert os._exit is leave
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (
            errno.ENAMETOOLONG,
            2,
            "qhk: a b: cannot be looked up (File name too long): correct the name or its",
        ),
        (errno.EACCES, 2, "qhk: a b: cannot be looked up (Permission denied): correct the name or its"),
        (errno.EIO, 1, "Traceback"),
    ],
)
def test_what_cannot_be_looked_up_is_one_line(
    number: int, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def look() -> int:
        raise OSError(number, os.strerror(number), "a\nb")

    assert report(look) == code
    err = capsys.readouterr().err
    assert err.startswith(said) and (err.count("\n") == 1) is (code == 2)


@pytest.mark.parametrize(
    "words", [["runs", "list", LONG], ["export", LONG], ["evaluate", f"checkpoint={LONG}"]]
)
def test_a_name_that_is_too_long_is_one_line(qhk: Run, words: list[str]) -> None:
    code, _, err = qhk(*words)
    assert code == 2 and "File name too long" in err and err.count("\n") == 1


PROGRAM = """
import os, sys, threading
from qhk.cli.process import report

def in_a_thread():
    thread = threading.Thread(target=lambda: os._exit(0))
    thread.start()
    thread.join()
    return 0

def at_once():
    os._exit(0)

def to_nobody():
    while True:
        print("x" * 10000)

def to_another():
    raise BrokenPipeError("a socket of somebody else's")

ways = {"thread": in_a_thread, "at once": at_once, "nobody": to_nobody, "another": to_another}
sys.exit(report(ways[sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("at once", 1, "qhk: exit was called with 0 ("),
        ("thread", 1, "qhk: os._exit was called with 0 in a thread"),
        ("nobody", 141, ""),
        ("another", 1, "socket"),
    ],
)
def test_exits_at_once_and_pipes(how: str, code: int, said: str) -> None:
    """In a process of its own, which ``os._exit`` may end. A reader that has gone is no broken socket."""
    command = [sys.executable, "-c", PROGRAM, how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        if how == "nobody":
            process.stdout.read(10)
            process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == code, err
    assert said in err and "Exception ignored" not in err
