"""What a run is called in the tools that mirror it: the claim and the names of what it was composed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qhk.config.catalogue import Catalogue, choice_of


def labelled(plain: Mapping[str, Any], overrides: Sequence[str], catalogue: Catalogue) -> dict[str, Any]:
    """Return a resolved config whose ``tracking`` has notes and tags where the user has given none.

    Notes are the claims of the experiment and the sweep that the overrides choose, tags their names.
    """
    tracking = plain["tracking"]
    if not isinstance(tracking, dict):
        return dict(plain)
    chosen = {group: choice_of(group, overrides) for group in ("experiment", "sweep")}
    places = [f"{group}/{option}" for group, option in chosen.items() if option is not None]
    files = [catalogue.by_place[place] for place in places if place in catalogue.by_place]
    claims = "\n\n".join(file.claim for file in files if file.claim)
    found = {"notes": claims or None, "tags": [file.option for file in files]}
    given = {key: value for key, value in tracking.items() if key not in found or value}
    return {**plain, "tracking": {**found, **given}}
