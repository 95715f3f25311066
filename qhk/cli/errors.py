"""User mistakes as one line on stderr and exit code 2; anything else keeps its traceback."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qhk.cli.catalogue import Catalogue
from qhk.errors import UserError
from qhk.settings import Settings
from qhk.settings.problems import node_fields, suggestion
from qhk.tracking.status import RunState
from qhk.training.stop import RunStopped

USER_ERROR = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: not done, and the same command goes on."""
HYDRA_ERRORS = (HydraException, OmegaConfBaseException)


def report(action: Callable[[], int]) -> int:
    """The action's own exit code; 2 after one line for a user's mistake, 1 after any other error's traceback.

    75 for a run that was preempted, 130 for one that was interrupted: the same command goes on with both.

    A user's mistake is a ``UserError``; a ValueError out of a library, or of a failed operation in our own
    code, is shown for the defect that it is.
    """
    try:
        return action()
    except RunStopped as stop:
        print(f"qhk: {stop}; the same command resumes", file=sys.stderr)
        return INTERRUPTED if stop.state is RunState.CANCELLED else PREEMPTED
    except KeyboardInterrupt:
        print("qhk: interrupted; the same command resumes an unfinished run", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; the flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print(f"qhk: {one_line(str(error))}", file=sys.stderr)
        return USER_ERROR
    except Exception:
        traceback.print_exc()
        return INTERNAL_ERROR


def one_line(text: str) -> str:
    """The text with all white space, line ends included, as single spaces."""
    return " ".join(text.split())


def explain_override(
    error: Exception, overrides: Sequence[str], base: DictConfig | None, catalogue: Catalogue
) -> str:
    """One line that names the override which Hydra refused, why, and what to write instead."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = catalogue.options.get(group, [])
        return f"{group}={option}: {group} has no option {option!r}; {suggestion(option, options)}"
    found = re.search(
        r"Could not (?:override|append to config|delete from config)[^'\"\n]*['\"]([^'\"]+)['\"]", str(error)
    )
    found = found or re.search(r"Could not (?:override|delete)\s+([\w./@-]+)", str(error))
    if found is not None:
        return _unknown_key(found.group(1).rstrip("."), overrides, base, catalogue)
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        return one_line(f"{error} ({error.__cause__})")
    return one_line(str(error))


def explain_interpolation(error: OmegaConfBaseException) -> str:
    """One line for a value that refers to a key which is not there."""
    key = error.full_key or "config"
    first = str(error).splitlines()[0]
    return f"{key}: {one_line(first)}; write the value itself, or refer to an existing key as ${{group.key}}"


def _unknown_key(key: str, overrides: Sequence[str], base: DictConfig | None, catalogue: Catalogue) -> str:
    typed = next((text for text in overrides if text.lstrip("+~").startswith(key)), key)
    parent, _, last = key.rpartition(".")
    node = base if not parent or base is None else OmegaConf.select(base, parent, default=None)
    while parent and node is None:
        parent, _, last = parent.rpartition(".")
        node = base if not parent or base is None else OmegaConf.select(base, parent, default=None)
    known = [str(name) for name in node] if isinstance(node, DictConfig) else []
    prefix = f"{parent}." if parent else ""
    if last in known and typed.startswith("+"):
        return f"{typed}: {key} is there already; write {typed.lstrip('+')}"
    if last in known:
        return (
            f"{typed}: a mapping on the command line cannot bring new keys; write +{key}.NAME=VALUE for each"
        )
    if parent and not node_fields(Settings, parent):
        return (
            f"{typed}: {parent} has no key {last!r}; {suggestion(last, known, prefix=prefix)}; "
            f"write +{prefix}{last}=VALUE to add it"
        )
    if not parent:
        known = sorted({*known, *catalogue.options})
    where = f"{parent} has no key {last!r}" if parent else f"there is no key or group {last!r}"
    return f"{typed}: {where}; {suggestion(last, known, prefix=prefix)}"
