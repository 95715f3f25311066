"""Which mirrors a run has: one line for each, by the settings that ask for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

from qhk.errors import UserError
from qhk.settings.root import TrackingSettings
from qhk.tracking import trackio_mirror, wandb_offline
from qhk.tracking.mirror import GuardedMirror, LocalMirror, Mirror, MirrorRun
from qhk.tracking.wandb_online import OnlineMirror


def open_mirrors(
    tracking: TrackingSettings, run: MirrorRun, *, warn: Callable[[str], None]
) -> list[GuardedMirror]:
    """Return the opened mirrors of a run. Raises ``UserError`` where one lacks an account or its extra."""
    refuse_missing_extra(tracking)
    chosen: dict[str, Callable[[], Mirror]] = {}
    if tracking.wandb == "offline":
        chosen["W&B"] = partial(LocalMirror, run, wandb_offline.rebuild)
    if tracking.wandb == "online":
        chosen["W&B"] = partial(OnlineMirror, run)
    if tracking.trackio:
        chosen["trackio"] = partial(LocalMirror, run, trackio_mirror.rebuild)
    return [GuardedMirror(name, opened, warn=warn) for name, opened in chosen.items()]


def refuse_missing_extra(tracking: TrackingSettings) -> None:
    """Raise ``UserError`` where a mirror is asked for whose library is not installed."""
    if tracking.trackio and importlib.util.find_spec("trackio") is None:
        raise UserError(
            "tracking.trackio: true needs the extra trackio; install it: pip install 'qhk[trackio]'"
        )
