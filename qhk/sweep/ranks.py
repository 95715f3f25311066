"""How a process of a run learns its place among the others."""

from __future__ import annotations


def rank_variables(*, rank: int, local_rank: int, count: int, host: str, port: int) -> dict[str, str]:
    """The environment by which torch and accelerate know a process's place among ``count``."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
    }
