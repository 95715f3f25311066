"""status.json: one vocabulary, whole or not at all."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qhk.tracking.status import RunState, read_status, write_status


def test_round_trip_with_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert read_status(path) is None
    written = write_status(path, state=RunState.FAILED, step=12, cause="loss is nan\nat step 12")
    assert read_status(path) == written
    assert written.cause == "loss is nan at step 12"
    assert written.pid == os.getpid()
    age = datetime.now(UTC) - datetime.fromisoformat(written.heartbeat)
    assert -1 <= age.total_seconds() < 60
    assert json.loads(path.read_text())["state"] == "failed"


@pytest.mark.parametrize("text", ["{", "{}", '{"state": "asleep"}', '{"state": "done"}'])
def test_foreign_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "status.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"status\.json is not a status file"):
        read_status(path)
