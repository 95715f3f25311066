"""The processes of one run: what each of them owns, and how their numbers come together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate.state import PartialState
from accelerate.utils.operations import gather_object
from torch import Tensor, nn

from qhk.training.balance import LEAST_PIXELS, deal
from qhk.training.stop import RunFailure, RunStopped

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcome = TypeVar("Outcome")
Work = Callable[[Any, list[Any]], list[Any]]

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: a large model's answers to one batch of images take long."""


@contextmanager
def _with_others() -> Iterator[None]:
    """Raise ``RunFailure`` where the other processes cannot be reached any more."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = (str(error).splitlines() or [""])[0]
        raise RunFailure(
            f"another process of the run has ended or cannot be reached ({said}): its log says why; "
            "the same command resumes"
        ) from error


def _gather(items: list[Any]) -> list[Any]:
    with _with_others():
        gathered: list[Any] = gather_object(items)
    return gathered


def _join() -> PartialState:
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


class Processes:
    """One process of ``count``; the number of processes changes speed, never the experiment.

    Each holds the whole model, or a part of it where the run ``shards``.

    Every prompt of a step has a global index; process ``rank`` owns a part of them, whichever: random numbers
    follow the index, and what is compared is gathered in its order. Losses are divided by global counts
    before they meet, so gradients are *summed* over processes.
    """

    def __init__(self, form: str) -> None:
        self._state = None if form == "single" else _join()
        self.shards = form in ("fsdp2", "zero2", "zero3")
        self.rank: int = self._state.process_index if self._state else 0  # type: ignore[has-type]
        self.count: int = self._state.num_processes if self._state else 1  # type: ignore[has-type]

    @property
    def is_main(self) -> bool:
        """Return whether this process writes files and prints."""
        return self.rank == 0

    @property
    def device(self) -> str:
        """Return the device this process computes on."""
        if self._state is not None:
            return str(self._state.device)
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def accelerators(self) -> list[str]:
        """Return the names of this process's accelerators, none on a CPU."""
        return [torch.cuda.get_device_name()] if torch.cuda.is_available() else []

    def own_part(self, sizes: Sequence[float]) -> list[int]:
        """Return the places of the prompts of these sizes in pixels that this process works on, ascending.

        As many on each process; their number divides evenly: the settings check it.
        """
        assert len(sizes) % self.count == 0
        return deal(sizes, [len(sizes) // self.count] * self.count, least=LEAST_PIXELS)[self.rank]

    def gather_rows(self, rows: Tensor, places: Sequence[int]) -> Tensor:
        """Return all processes' rows, each at its global place; this process's belong to ``places``."""
        return torch.stack(self.gather_placed(list(rows.cpu()), places))

    def gather_placed(self, items: Sequence[Item], places: Sequence[int]) -> list[Item]:
        """Return all processes' items in the order of their global places."""
        gathered = self.gather_items(list(zip(places, items, strict=True)))
        return [item for _, item in sorted(gathered, key=_first)]

    def gather_items(self, items: Sequence[Item]) -> list[Item]:
        """Return all processes' items, in process order."""
        if self.count == 1:
            return list(items)
        return _gather(list(items))

    def total(self, value: int) -> int:
        """Return the sum of ``value`` over all processes."""
        return value if self.count == 1 else sum(_gather([value]))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up gradients over processes, in place; a parameter without one counts as zero.

        Where the model is spread over processes, its backward pass has done so.
        """
        if self.count == 1 or self.shards:
            return
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            with _with_others():
                torch.distributed.all_reduce(parameter.grad)

    def shared(self, value: Item) -> Item:
        """Return the first process's ``value``, on every process."""
        return self.gather_items([value])[0]

    def share_weights(self, model: nn.Module) -> None:
        """Copy the first process's weights to all, in place, so that rounding cannot let them diverge."""
        if self.count > 1:
            for tensor in model.state_dict().values():
                with _with_others():
                    torch.distributed.broadcast(tensor, src=0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise on every process the FloatingPointError that one of them met inside."""
        fault = ""
        try:
            yield
        except FloatingPointError as error:
            fault = str(error)
        faults = [text for text in self.gather_items([fault]) if text]
        if faults:
            raise FloatingPointError(faults[0])

    def spread(
        self, work: Callable[[Any, list[Item]], list[Result]], lead: Callable[[Work], Outcome]
    ) -> Outcome:
        """Return what ``lead`` returns on the first process, on every process.

        ``lead`` gets a function like ``work``, (name, items) -> one result per item, in order, that has
        each process work on its share; the other processes help until ``lead`` is done. Where it raises
        ``RunStopped`` between two calls, every process does.
        """
        if self.count == 1:
            return lead(work)
        if not self.is_main:
            outcome = self._help(work)
            if isinstance(outcome, RunStopped):
                raise outcome
            return outcome  # type: ignore[no-any-return]

        def everywhere(name: Any, items: list[Item]) -> list[Result]:
            return self._share(work, self.shared((name, items)))

        try:
            led = lead(everywhere)
        except RunStopped as stop:
            self.shared(None)
            self.shared(stop)
            raise
        except BaseException:
            self.shared(None)
            raise
        self.shared(None)
        return self.shared(led)

    def _help(self, work: Callable[[Any, list[Item]], list[Result]]) -> Any:
        """Does this process's share of whatever the first one asks for; its outcome."""
        while True:
            request: Any = self.shared(None)
            if request is None:
                return self.shared(None)
            self._share(work, request)

    def _share(
        self, work: Callable[[Any, list[Item]], list[Result]], request: tuple[Any, list[Item]]
    ) -> list[Result]:
        name, items = request
        numbers = list(range(len(items)))[self.rank :: self.count]
        done = work(name, [items[number] for number in numbers]) if numbers else []
        parts = self.gather_items([(numbers, done)])
        return [
            result
            for _, result in sorted((pair for part in parts for pair in zip(*part, strict=True)), key=_first)
        ]

    def wait(self) -> None:
        """Return once every process has called this."""
        if self._state is not None:
            with _with_others():
                self._state.wait_for_everyone()  # type: ignore[no-untyped-call]
