"""What the command line says of a node that every stage of a run has for itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from qhk.config.catalogue import Catalogue
from qhk.config.overrides import parse_override
from qhk.errors import UserError
from qhk.settings.root import STAGE_KEYS

_INTERPOLATED = re.compile(r"\$\{([a-z_.]+)\}")


def refuse_overruled_by_stages(overrides: Sequence[str], config: DictConfig, catalogue: Catalogue) -> None:
    """Raise UserError at an override of a root node that every stage replaces and nothing else reads.

    ``config`` is composed, its interpolations unresolved: a key that one of them reads has an effect. What an
    experiment or any other file says of such a node is not looked at. The line says how to override the
    stages' own nodes.
    """
    stages = OmegaConf.to_container(config.get("stages") or OmegaConf.create(), resolve=False)
    assert isinstance(stages, dict)
    if not stages:
        return
    own = [{name for name, node in (stage or {}).items() if node is not None} for stage in stages.values()]
    replaced = set.intersection(*own) - set(STAGE_KEYS)
    read = _INTERPOLATED.findall(OmegaConf.to_yaml(config, resolve=False))
    for text in overrides:
        override = parse_override(text)
        key = override.package or override.key_or_group
        node = key.partition(".")[0]
        if node not in replaced or any(_overlap(key, other) for other in read):
            continue
        fixes = " ".join(_of_stage(text, override, str(stage), catalogue) for stage in stages)
        raise UserError(f"{text}: every stage has its own {node}; write {fixes}, or add stages=none")


def _overlap(one: str, other: str) -> bool:
    """Return whether one dotted key is the other, or stands below it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _of_stage(text: str, override: Override, stage: str, catalogue: Catalogue) -> str:
    """Return the same override of the stage's own node, as Hydra accepts it."""
    key = override.key_or_group
    place = f"stages.{stage}.{override.package or key}"
    is_choice = key in catalogue.options and not override.is_delete()
    sign, equals, value = text.partition("=")
    prefix = sign[: len(sign) - len(sign.lstrip("+~"))]
    word = f"{prefix}{key}@{place}" if is_choice else f"{prefix}{place}"
    return f"{word}{equals}{value}"
