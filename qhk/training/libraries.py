"""Libraries of extras that a run needs, looked for without importing any."""

from __future__ import annotations

from importlib.util import find_spec

from qhk.errors import UserError
from qhk.settings.root import Settings
from qhk.tracking.mirrors import refuse_missing_extra


def library_problems(settings: Settings) -> list[str]:
    """Return a line for each library that the run needs and this environment has not."""
    lines, form = [], settings.distributed.form
    if form in ("zero2", "zero3") and find_spec("deepspeed") is None:
        lines.append(
            f"distributed: {form} needs deepspeed; install it with pip install 'qhk[cuda]', "
            "or choose distributed=fsdp2"
        )
    if settings.optimizer.form == "adamw_8bit" and find_spec("torchao") is None:
        lines.append(
            "optimizer.form: adamw_8bit needs torchao; install it with pip install 'qhk[eight_bit]', "
            "or choose optimizer=adamw_stochastic"
        )
    try:
        refuse_missing_extra(settings.tracking)
    except UserError as error:
        lines.append(str(error))
    return lines
