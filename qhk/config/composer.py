"""Training configs that have much in common, as the cells of a sweep have: composed once, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import dropwhile, takewhile

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qhk.config.catalogue import Catalogue
from qhk.config.check import checked_settings
from qhk.config.compose import compose_config, plain_config
from qhk.config.labels import labelled
from qhk.config.overrides import check_overrides, parse_override
from qhk.config.unused import refuse_overruled_by_stages
from qhk.settings.root import Settings


class TrainingComposer:
    """Composes configs of ``qhk train`` from lists of overrides, and remembers what it has composed.

    Hydra sets values after it has composed the options, in the order of the overrides. So the values at the
    end of a list are set on a copy of the config that the overrides before them compose to.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._groups = frozenset(catalogue.options)
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config, interpolations unresolved. Raises UserError as ``compose_config`` does."""
        backwards = list(reversed(overrides))
        values = list(reversed(list(takewhile(self._sets_value, backwards))))
        options = tuple(reversed(list(dropwhile(self._sets_value, backwards))))
        if options not in self._composed:
            self._composed[options] = compose_config("train", options, self.catalogue)
        check_overrides(values, self.catalogue)
        config = deepcopy(self._composed[options])
        try:
            for text in values:
                override = parse_override(text)
                OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
        except OmegaConfBaseException:
            # Composed as a whole, the mistake is explained.
            return compose_config("train", overrides, self.catalogue)
        return config

    def settings(self, overrides: Sequence[str], seeds: Sequence[int]) -> list[Settings]:
        """Return the checked settings of runs that differ in their seed alone.

        Raises UserError, one line, for any mistake.
        """
        config = self.config(overrides)
        refuse_overruled_by_stages(overrides, config, self.catalogue)
        uses_seed = "${seed" in str(OmegaConf.to_container(config, resolve=False))
        found: list[Settings] = []
        for seed in seeds:
            if found and not uses_seed:
                found.append(found[0].model_copy(update={"seed": seed}))
                continue
            config.seed = seed
            plain = plain_config(config)
            plain.pop("sweep", None)
            found.append(checked_settings("train", labelled(plain, overrides, self.catalogue)))
        return found

    def _sets_value(self, text: str) -> bool:
        """Return whether an override sets an existing key: no option, no new or deleted key, not Hydra's."""
        key = text.partition("=")[0]
        return not key.startswith(("+", "~", "hydra")) and "@" not in key and key not in self._groups
