"""Random streams that depend on what they are for, never on leftover state, process or rank."""

from __future__ import annotations

import hashlib

import numpy as np


def stream_seed(seed: int, purpose: str, *indices: int | str) -> int:
    """Return a 64-bit seed in [0, 2**64) for the stream named by ``(seed, purpose, indices)``.

    The same arguments give the same number on every machine and Python version (blake2b of a
    length-prefixed encoding, so ``("ab", "c")`` and ``("a", "bc")`` differ, and so do ``1`` and ``"1"``).
    Use one purpose per kind of randomness (``"sampling"``, ``"twin"``, ...) and the step, epoch, prompt
    index or example id as indices. Booleans, floats and numpy integers are refused, since their
    encodings would be a matter of taste.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (seed, purpose, *indices):
        assert type(part) in (int, str), f"stream_seed takes int and str, got {type(part).__name__}"
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest(), "little")


def stream_generator(seed: int, purpose: str, *indices: int | str) -> np.random.Generator:
    """Return a fresh numpy generator (PCG64) at the start of the stream ``(seed, purpose, indices)``."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, purpose, *indices)))
