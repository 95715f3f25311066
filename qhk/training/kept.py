"""What is made once and kept for the passes that follow, up to a limit of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by key, until the next would take more than ``limit_mib``: then it is made anew each time.

    Nothing gives way to another. Passes visit all examples in another order each, so a part that stays is
    found as often as its size allows, where the one last used would be gone before it comes again. What is
    found is what would be made, so no result depends on the limit. Threads may ask at the same time.
    """

    def __init__(self, limit_mib: int) -> None:
        self.limit_mib, self.num_bytes, self.is_full = limit_mib, 0, False
        self._values: dict[Hashable, Value] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of values that are kept."""
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value], *, size: Callable[[Value], int]) -> Value:
        """Return the value of ``key``, made where it is not kept; ``size`` gives its bytes."""
        if not self.limit_mib:
            return make()
        with self._lock:
            if key in self._values:
                return self._values[key]
        value = make()
        num_bytes = size(value)
        with self._lock:
            if key in self._values:  # another thread was as fast
                return self._values[key]
            if self.num_bytes + num_bytes > self.limit_mib * 2**20:
                self.is_full = True
            else:
                self._values[key] = value
                self.num_bytes += num_bytes
        return value
