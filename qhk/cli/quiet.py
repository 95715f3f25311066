"""Keeps libraries from talking over our own progress and messages."""

from __future__ import annotations

import logging
import warnings

import transformers


def quiet_libraries() -> None:
    """Silences transformers' progress bars and notices of this process; errors still speak."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
