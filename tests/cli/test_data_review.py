"""The review command as a user starts it: address, answers, Ctrl-C, and what it refuses before serving."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qhk.pairs.manifest import open_pairs
from qhk.pairs.records import judgement_row
from tests.conftest import Qhk as Run
from tests.pairs.review.conftest import write_pairs
from tests.words import last_of_each

ROOT = Path(__file__).parents[2]


def test_serves_what_waits_for_a_person_until_ctrl_c(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "set", 3)
    manifest = open_pairs(path)
    pair = manifest.pairs["group_000001"]
    manifest.append([judgement_row(pair, judge="j", verdict="different", reply="no", failure="")])
    words = [sys.executable, "-m", "qhk.cli.main", "data", "review", f"pairs.manifest={path}", "port=0"]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith(f"2 of 3 pairs of {path}: http://127.0.0.1:")
        host = line.strip().removesuffix("/").rpartition("//")[2]
        talk = http.client.HTTPConnection(host, timeout=20)
        talk.request("GET", "/api/session")
        session = json.load(talk.getresponse())
        assert (session["total"], session["blind"]) == (2, True)
        body = {"manifest": session["id"], "reviewer": "Ann", "pair": "group_000002", "version": 1}
        headers = {"Content-Type": "application/json", "Origin": f"http://{host}"}
        request = json.dumps(body | {"answer": "same", "key": "one key of Ann"})
        talk.request("POST", "/api/decide", request, headers)
        assert talk.getresponse().status == 200
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=20)
    assert server.returncode == 0 and "Traceback" not in err
    assert "Ann: same 1" in out
    assert out.endswith(f"  qhk data build pairs.manifest={path}\n")
    assert open_pairs(path).pairs["group_000002"].human == "same"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pairs.manifest=none.jsonl"], "no such manifest; make it with qhk data degrade"),
        (["types=[haze]"], "no pair of type 'haze'; choose from blur, jpeg, noise"),
        (["port=70000"], "port: must be less than or equal to 65535"),
        (["order=random"], "order"),
        (["scope=to_confirm"], "none of the 3 pairs"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(qhk: Run, tmp_path: Path, words: list[str], line: str) -> None:
    manifest = open_pairs(write_pairs(tmp_path / "set", 3))
    for pair in manifest:
        manifest.append([judgement_row(pair, judge="j", verdict="different", reply="no", failure="")])
    code, _, err = qhk("data", "review", *last_of_each([f"pairs.manifest={manifest.path}", *words]))
    assert code == 2 and line in err and len(err.splitlines()) == 1
