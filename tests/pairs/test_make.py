from __future__ import annotations

import pytest

from qhk.pairs.make import in_order


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    assert list(in_order(abs, range(-30, 0), workers=workers)) == list(range(30, 0, -1))


def test_closing_drops_what_was_not_begun() -> None:
    results = in_order(abs, iter(range(10**9)), workers=1)
    assert next(results) == 0
    results.close()
