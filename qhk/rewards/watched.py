"""An answer that remembers what of it was looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qhk.types import Answer

_FIELDS = ("score", "aspects", "labels")


class WatchedAnswer(Answer):
    """A readable answer like any other, that notes which of its fields, and which labels, are asked for.

    ``parsed`` and ``reason`` say nothing of a field and are not noted. Equal to every answer that says the
    same, watched or not.
    """

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in _FIELDS:
            return value
        own = object.__getattribute__(self, "__dict__")
        own.setdefault("_asked", {}).setdefault(name, bool(value) if name != "score" else value is not None)
        return _WatchedLabels(value, own["_asked"]) if name == "labels" else value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Answer):
            return NotImplemented
        ours = (self.reason, self.score, self.aspects, self.labels)
        return ours == (other.reason, other.score, other.aspects, other.labels)

    @property
    def parsed(self) -> bool:
        return True

    def only_lacking(self) -> list[str]:
        """The fields that were asked for, if this answer has none of them; else nothing."""
        asked: dict[str, bool] = self.__dict__.get("_asked", {})
        single = {name: has for name, has in asked.items() if name.startswith("label ")}
        # Of labels that are there, single words were asked for, or all of them.
        found = {name: has for name, has in asked.items() if name != "labels"} if single else asked
        return [] if any(found.values()) else list(found)


class _WatchedLabels(dict[str, str]):
    """Labels that note each that is asked for by name; a copy, made from pairs alone, notes for nobody."""

    def __init__(
        self, labels: Mapping[str, str] | Iterable[tuple[str, str]], asked: dict[str, bool] | None = None
    ) -> None:
        super().__init__(labels)
        self._asked = {} if asked is None else asked

    def __getitem__(self, name: str) -> str:
        self._asked[f"label {name}"] = name in self.keys()
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._asked[f"label {name}"] = name in self.keys()
        return super().get(name, default)


def watch(answer: Answer) -> WatchedAnswer:
    """The same answer, watched; nothing of it has been asked for yet."""
    return WatchedAnswer(
        score=answer.score, reason=answer.reason, aspects=answer.aspects, labels=answer.labels
    )
