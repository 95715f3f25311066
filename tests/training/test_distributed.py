"""A process whose peers are gone says so in one line."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from qhk.training import distributed
from qhk.training.distributed import Processes
from qhk.training.stop import RunFailure, is_known


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """The first of two processes, the other of which is dead: what torch raises then."""

    def gone(*words: Any, **keys: Any) -> Any:
        raise RuntimeError("[/pytorch/gloo/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1\nmore")

    monkeypatch.setattr(distributed, "gather_object", gone)
    for name in ("all_reduce", "broadcast"):
        monkeypatch.setattr(torch.distributed, name, gone)
    processes = Processes("single")
    processes.count = 2
    processes._state = SimpleNamespace(wait_for_everyone=gone)  # type: ignore[assignment]
    return processes


@pytest.mark.parametrize(
    "meet",
    [
        lambda processes: processes.gather_items([1]),
        lambda processes: processes.gather_rows(torch.zeros(1), [0]),
        lambda processes: processes.total(1),
        lambda processes: processes.shared(1),
        lambda processes: processes.sum_gradients([torch.nn.Parameter(torch.zeros(1))]),
        lambda processes: processes.share_weights(torch.nn.Linear(1, 1)),
        lambda processes: processes.wait(),
        lambda processes: processes.spread(lambda name, items: items, lambda work: work("x", [1])),
    ],
)
def test_a_dead_peer_is_one_line(alone: Processes, meet: Callable[[Processes], Any]) -> None:
    with pytest.raises(RunFailure, match="another process of the run has ended .*closed by peer") as caught:
        meet(alone)
    assert is_known(caught.value) and "\n" not in str(caught.value)
