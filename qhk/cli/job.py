"""One job: its overrides, composed and checked into typed settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from qhk.cli.arguments import COMMANDS
from qhk.cli.command import Command, Job
from qhk.config.catalogue import Catalogue, choice_of
from qhk.config.check import checked_settings
from qhk.errors import UserError
from qhk.settings.base import Node
from qhk.settings.identity import run_name
from qhk.settings.inputs import DatasetSettings
from qhk.settings.problems import first_problem
from qhk.settings.root import Settings


def prepare(command: str, overrides: Sequence[str], catalogue: Catalogue) -> Job:
    """The checked job of a command and its overrides. Raises ValueError, one line, for any mistake."""
    from qhk.config.compose import compose_config, overruled_choices, plain_config
    from qhk.config.unused import refuse_overruled_by_stages, refuse_unused_strengths

    config = compose_config(command, overrides, catalogue)
    refuse_unused_strengths([(overrides, lambda: config)])
    plain = plain_config(config)
    if plain.pop("sweep", None) is not None:
        raise UserError(
            f"sweep={choice_of('sweep', overrides)}: has no effect on qhk {command}; leave it out"
        )
    settings_command = COMMANDS[command]
    assert isinstance(settings_command, Command)
    request = _take_request(plain, settings_command.request)
    settings = checked_settings(command, plain)
    if command == "train":
        refuse_overruled_by_stages(overrides, config, catalogue)
    if settings.name is None:
        name = run_name(choice_of("experiment", overrides), overrides)
        settings = settings.model_copy(update={"name": name})
    return Job(
        settings=settings,
        datasets={name: DatasetSettings.model_validate(entry) for name, entry in plain["dataset"].items()},
        overrides=tuple(overrides),
        request=request,
        notes=(
            *overruled_choices(command, overrides, config, catalogue),
            *_loading_note(settings, overrides),
        ),
    )


def _loading_note(settings: Settings, overrides: Sequence[str]) -> list[str]:
    """A line where sets of the user's choice are read as the miniature ones are, which nobody chose."""
    chosen = [name for name in settings.data if not settings.dataset[name].miniature]
    full_size = (
        choice_of("experiment", overrides) is not None and choice_of("scale", overrides) != "miniature"
    )
    said = any(text.lstrip("+~").startswith(("loading=", "loading.")) for text in overrides)
    if not chosen or full_size or said:
        return []
    return [
        f"{', '.join(chosen)}: read with loading=miniature, as the default's sets are; write loading=default "
        "for published sets, loading=small for small ones of your own"
    ]


def _take_request(plain: dict[str, Any], request: type[Node] | None) -> Node | None:
    """Takes the keys that only this command has out of the config."""
    if request is None:
        return None
    own = {key: plain.pop(key) for key in request.model_fields if key in plain}
    try:
        return request.model_validate(own)
    except ValidationError as error:
        raise UserError(first_problem(error, own, request)) from None


def read_request(request: type[Node], command: str, overrides: Sequence[str], catalogue: Catalogue) -> Node:
    """Return the whole config of a light command. Raises UserError, one line, for any mistake."""
    from qhk.config.compose import compose_config, plain_config

    plain = plain_config(compose_config(command, overrides, catalogue))
    try:
        return request.model_validate(plain)
    except ValidationError as error:
        raise UserError(first_problem(error, plain, request)) from None
