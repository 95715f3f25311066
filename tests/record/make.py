"""Runs the cases and writes what they gave: ``python -m tests.record.make [case ...]``.

Made once, with the code whose numbers are to stay, and again only where a number is meant to change.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.record.cases import CASES, COMMON, Case
from tests.untimed import untimed
from tests.words import last_of_each

RECORD = Path(__file__).parent / "record.json"


def machine() -> dict[str, str]:
    """Return what decides the last bits of a float: the CPU, its instructions, the libraries."""
    import torch
    import transformers

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.is_file() else []
    fields = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = " ".join(sorted(fields.get("flags", "").split()))
    return {
        "cpu": fields.get("model name", platform.processor()),
        "model": fields.get("model", ""),
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def run_case(name: str, root: Path, *, cache: Path) -> dict[str, Any]:
    """Run a case below ``root``, where those it starts from have run; return what is on record of it.

    ``cache`` holds the generated sets.
    """
    case = CASES[name]
    words = ["train", *COMMON, *case.words, f"name={name}"]
    words += [f"paths.outputs={root / 'outputs'}", f"paths.cache={cache}"]
    if case.start is not None:
        words.append(f"model.path={run_directory(case.start, root) / 'checkpoints' / 'last'}")
    _run(case, last_of_each(words), run_directory(name, root))
    return _read(run_directory(name, root))


def run_directory(name: str, root: Path) -> Path:
    """Return where a case's run lies."""
    return root / "outputs" / "default" / name / "seed0"


def _run(case: Case, words: list[str], directory: Path) -> None:
    if case.processes > 1:
        _run_together(words, case.processes)
        return
    if case.stopped:
        with _terminate_after_a_step(directory / "metrics.jsonl"):
            assert _main(words) != 0, "the run was not stopped"
        done = [row["step"] for row in _rows(directory) if "train/loss/total" in row]
        assert done and max(done) < 3, f"stopped after steps {done}"
    assert _main(words) == 0, words


def _main(words: list[str]) -> int:
    from qhk.cli.main import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(words)
    if code:
        print(printed.getvalue(), file=sys.stderr)
    return code


def _run_together(words: list[str], count: int) -> None:
    """Start the processes as torchrun does, without the seconds that it needs itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(count):
        environment = {**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", "qhk.cli.main", *words]
        children.append(
            subprocess.Popen(
                command,
                env=environment | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    for child in children:
        printed, _ = child.communicate(timeout=600)
        assert child.returncode == 0, printed.decode()


@contextlib.contextmanager
def _terminate_after_a_step(metrics: Path) -> Iterator[None]:
    """Send SIGTERM to this process, once, as soon as a training step is in ``metrics``."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if metrics.is_file() and "train/loss/total" in metrics.read_text(encoding="utf-8"):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _rows(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _read(directory: Path) -> dict[str, Any]:
    """Return a finished run's rows without times, memory and rates, its weights' hash and its history."""
    import torch

    rows = []
    for row in _rows(directory):
        kept = untimed(row)
        kept["section"] = kept.pop("section", None) or kept.pop("stage")
        rows.append(kept)
    last = directory / "checkpoints" / "last"
    state = torch.load(last / "training.pt", map_location="cpu", weights_only=True)
    return {"rows": rows, "weights": _weights_hash(last / "model.safetensors"), "history": state["history"]}


def _weights_hash(file: Path) -> str:
    """Return the SHA-256 of all tensors, in the order of their names: name, type, shape and bytes."""
    import torch
    from safetensors.torch import load_file

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def dump(record: dict[str, Any]) -> str:
    """Return the record as JSON with a row of a run per line."""
    lines = ["{", f'"machine": {json.dumps(record["machine"])},', '"cases": {']
    parts = []
    for name, case in record["cases"].items():
        rows = ",\n".join(f"  {json.dumps(row)}" for row in case["rows"])
        rest = f'"weights": "{case["weights"]}", "history": {json.dumps(case["history"])}'
        parts.append(f'"{name}": {{{rest}, "rows": [\n{rows}]}}')
    return "\n".join([*lines, ",\n".join(parts), "}", "}", ""])


def main(names: list[str]) -> None:
    """Run the named cases, or all, and put them on record."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if names else {"cases": {}}
    with tempfile.TemporaryDirectory() as root:
        for name in CASES:
            if not names or name in names or any(CASES[other].start == name for other in names):
                started = time.process_time()
                record["cases"][name] = run_case(name, Path(root), cache=Path(root) / "cache")
                print(f"{name}: {time.process_time() - started:.1f} CPU s", flush=True)
    record["machine"] = machine()
    RECORD.write_text(dump(record), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
