"""Settings of training runs that differ in their seed: composed once, checked once."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import OmegaConf

from qhk.config.catalogue import Catalogue
from qhk.config.check import checked_settings
from qhk.config.compose import compose_config, plain_config
from qhk.config.labels import labelled
from qhk.config.unused import refuse_overruled_by_stages
from qhk.settings.root import Settings


def training_settings(overrides: Sequence[str], seeds: Sequence[int], catalogue: Catalogue) -> list[Settings]:
    """Return the checked settings of runs that differ in their seed alone.

    Raises UserError, one line, for any mistake.
    """
    config = compose_config("train", overrides, catalogue)
    refuse_overruled_by_stages(overrides, config, catalogue)
    uses_seed = "${seed" in str(OmegaConf.to_container(config, resolve=False))
    found: list[Settings] = []
    for seed in seeds:
        if found and not uses_seed:
            found.append(found[0].model_copy(update={"seed": seed}))
            continue
        config.seed = seed
        plain = plain_config(config)
        plain.pop("sweep", None)
        found.append(checked_settings("train", labelled(plain, overrides, catalogue)))
    return found
