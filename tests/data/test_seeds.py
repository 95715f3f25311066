from __future__ import annotations

import subprocess
import sys

import pytest

from qhk.data.seeds import stream_generator, stream_seed

GOLDEN = (4175436301138037391, 11089076519887008868)


def test_known_values_never_change() -> None:
    """Golden numbers: a change here changes every published run."""
    assert stream_seed(0, "sampling", 3) == GOLDEN[0]
    assert stream_seed(1, "twin", "a.png", 2) == GOLDEN[1]


def test_parts_cannot_be_confused() -> None:
    variants = {
        stream_seed(0, "ab", "c"),
        stream_seed(0, "a", "bc"),
        stream_seed(0, "abc"),
        stream_seed(0, "ab", "c", ""),
        stream_seed(0, "a", 1),
        stream_seed(0, "a", "1"),
        stream_seed(0, "a", 1, 1),
        stream_seed(0, "a", 11),
        stream_seed(1, "a", 1),
        stream_seed(-1, "a", 1),
    }
    assert len(variants) == 10
    assert all(0 <= value < 2**64 for value in variants)


def test_same_in_another_process() -> None:
    code = "from qhk.data.seeds import stream_seed; print(stream_seed(7, 'x', 'y', 5))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == stream_seed(7, "x", "y", 5)


def test_generators_repeat_and_differ() -> None:
    first = stream_generator(0, "a", 0).random(8)
    assert (first == stream_generator(0, "a", 0).random(8)).all()
    assert (first != stream_generator(0, "a", 1).random(8)).all()


@pytest.mark.parametrize("bad", [True, 1.0, None])
def test_other_types_are_refused(bad: object) -> None:
    with pytest.raises(AssertionError, match="int and str"):
        stream_seed(0, "a", bad)  # type: ignore[arg-type]
