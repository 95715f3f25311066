"""The review server in a process of its own, that a test can kill: PATH PORT [seeing]."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from qhk.pairs.review.serve import serve
from tests.pairs.review.conftest import desk_over

ROOT = Path(__file__).parents[3]


class Server:
    """A server over one manifest, always on the same port."""

    def __init__(self, path: Path, *, blind: bool = True) -> None:
        self.path, self.blind, self.port = path, blind, free_port()
        self.process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Returns once connections are taken."""
        words = [
            sys.executable,
            "-m",
            __name__,
            str(self.path),
            str(self.port),
            "" if self.blind else "seeing",
        ]
        self.process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == self.url

    def stop(self, number: signal.Signals = signal.SIGKILL) -> int:
        """The exit code after the signal."""
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        return code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    serve(
        desk_over(Path(sys.argv[1]), blind=not sys.argv[3]),
        port=int(sys.argv[2]),
        on_ready=lambda address: print(address, flush=True),
    )
