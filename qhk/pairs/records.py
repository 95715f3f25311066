"""What a manifest of pairs holds: the records, and the merged state of one pair.

A record is one JSON object. All have ``kind``, ``step`` and ``time`` (UTC, ISO 8601); all but ``settings``
and ``failure`` have ``group_id``, the name that an original and its degraded copies share:

- ``pair``: source image with its opinion, and the first degraded copy.
- ``strengthened``: a further degraded copy, made from an earlier one, in a file of its own.
- ``judgement``: what a judge said of one version of a pair, with the reply as it came.
- ``decision``: what a person said of one version of a pair; verdict null takes it back.
- ``failure``: what a step could not do, and why (``item`` names the image or pair).
- ``settings``: the values that a step works with, so that a resumed step can refuse others.

The version of a degraded copy is its number of degradations: 1, or 2 once strengthened. Judgements and
decisions say which version they saw; those on an older version than the newest stand, and count no more.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from qhk.types import Example

Verdict = Literal["same", "different", "unusable"]
"""Whether original and copy look the same, differ visibly, or are not fit for training at all."""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

Answer = Literal[Verdict, "unsure", "skip"]
"""What a reviewer can say: a verdict, that it cannot be told, or that it is put off."""

ANSWERS: tuple[Answer, ...] = (*VERDICTS, "unsure", "skip")


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradationStep:
    """One operation: its type, its strength, the seed of its stream, and where the strength comes from.

    ``level`` is a preset's name (``stage_1``) or what it was calibrated to (``ssim=0.80``).
    """

    type: str
    strength: float
    seed: int
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A degraded image: its path relative to the manifest, its sha256, and what was done, in order.

    ``ssim`` is the structural similarity to the source, or None where it was not measured.
    """

    path: str
    sha256: str
    degradations: tuple[DegradationStep, ...]
    ssim: float | None

    @property
    def version(self) -> int:
        return len(self.degradations)

    @property
    def type(self) -> str:
        """Return ``blur``, or ``blur+noise`` for a strengthened copy."""
        return "+".join(degradation.type for degradation in self.degradations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An original: whose it is, where it lies (relative to the manifest), its digest, its opinion.

    ``mos`` is on [1, 5], ``mos_native`` on the set's own scale; both are None where a set has labels only.
    The opinion is the original's alone: a degraded copy has none.
    """

    example_id: str
    dataset: str
    split: str
    path: str
    sha256: str
    width: int
    height: int
    mos: float | None
    mos_native: float | None
    higher_is_better: bool
    mos_std: float | None
    reference: str | None
    labels: Mapping[str, str | float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A judge's answer about one version; ``verdict`` is None for a failure, which is no answer.

    The reply itself stays on disk: ``PairManifest.record_at(place)`` reads the whole record.
    """

    judge: str
    version: int
    verdict: Verdict | None
    failure: str
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A person's answer about one version; ``answer`` is None once it was taken back."""

    reviewer: str
    version: int
    answer: Answer | None
    time: str

    @property
    def verdict(self) -> Verdict | None:
        """Return the answer where it is a verdict, else None."""
        return next((word for word in VERDICTS if word == self.answer), None)


@dataclass(slots=True, kw_only=True)
class Pair:
    """All that is known of one pair; ``copies`` by version, the latest answer per judge and per reviewer."""

    group_id: str
    source: Source
    copies: list[Copy]
    judgements: dict[tuple[str, int], Judgement] = field(default_factory=dict)
    decisions: dict[tuple[str, int], Decision] = field(default_factory=dict)

    @property
    def copy(self) -> Copy:
        """Return the newest degraded copy."""
        return self.copies[-1]

    @property
    def judgement(self) -> Judgement | None:
        """Return the latest answer of any judge on the newest copy, else the latest failure, else None."""
        own = [word for word in self.judgements.values() if word.version == self.copy.version]
        answers = [word for word in own if word.verdict is not None]
        return max(answers or own, key=lambda word: word.place, default=None)

    @property
    def human(self) -> Verdict | None:
        """Return the verdict of most reviewers of the newest copy; None without one, and for a tie."""
        counts = self.votes.most_common(2)
        if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
            return None
        return counts[0][0]

    @property
    def votes(self) -> Counter[Verdict]:
        """Return how many reviewers of the newest copy stand by each verdict."""
        own = [word for word in self.decisions.values() if word.version == self.copy.version]
        return Counter(word.verdict for word in own if word.verdict is not None)

    @property
    def disputed(self) -> bool:
        """Return whether reviewers of the newest copy disagree without a majority."""
        return bool(self.votes) and self.human is None

    @property
    def verdict(self) -> Verdict | None:
        """Return the verdict that counts: people's, else (without any person) the judge's, else None."""
        if self.votes:
            return self.human
        return None if self.judgement is None else self.judgement.verdict


def group_id(dataset: str, example_id: str) -> str:
    """Return ``group_`` and 16 hexadecimal digits, the same for one image of one set in every manifest."""
    text = f"{len(dataset)}:{dataset}{example_id}".encode("utf-8", "surrogateescape")
    return f"group_{hashlib.blake2b(text, digest_size=8).hexdigest()}"


def pair_row(group_id: str, source: Source, copy: Copy) -> dict[str, Any]:
    """Return the record of a new pair."""
    return {"kind": "pair", "step": "degrade", "group_id": group_id} | {
        "source": _plain(source),
        "copy": _copy_plain(copy),
    }


def strengthened_row(group_id: str, copy: Copy) -> dict[str, Any]:
    """Return the record of a further degraded copy."""
    return {"kind": "strengthened", "step": "strengthen", "group_id": group_id, "copy": _copy_plain(copy)}


def judgement_row(
    pair: Pair, *, judge: str, verdict: Verdict | None, reply: str | None, failure: str, **more: Any
) -> dict[str, Any]:
    """Return the record of a judge's answer; ``more`` holds tokens, attempts, and an older ``version``."""
    assert (verdict is None) == bool(failure), "a failure has a reason and no verdict, an answer the reverse"
    row = {"kind": "judgement", "step": "filter", "group_id": pair.group_id, "version": pair.copy.version}
    return row | {"judge": judge, "verdict": verdict, "reply": reply, "failure": failure} | more


def decision_row(pair: Pair, *, reviewer: str, verdict: Answer | None, **more: Any) -> dict[str, Any]:
    """Return the record of a person's answer about the newest copy; verdict None takes the last one back."""
    row = {"kind": "decision", "step": "review", "group_id": pair.group_id, "version": pair.copy.version}
    return row | {"reviewer": reviewer, "verdict": verdict} | more


def asked_row(items: Sequence[str]) -> dict[str, Any]:
    """Return the record of the images that are to have a copy, by the names that failures give them."""
    return {"kind": "asked", "step": "degrade", "items": list(items)}


def failure_row(*, step: str, item: str, reason: str) -> dict[str, Any]:
    """Return the record of what a step could not do."""
    return {"kind": "failure", "step": step, "item": item, "reason": reason}


def settings_row(*, step: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of the values a step works with."""
    return {"kind": "settings", "step": step, "values": dict(values)}


def read_pair(row: Mapping[str, Any]) -> Pair:
    """Return the pair of a ``pair`` record. Raises KeyError or TypeError where the record is not one.

    Copies are written to a folder called like the set, under names with the group id: neither may lead out.
    """
    values = dict(row["source"])
    for name in (row["group_id"], values["dataset"]):
        check_name(name)
    _require_texts(values, "example_id", "path", "sha256")
    source = Source(**values | {key: sys.intern(values[key]) for key in ("dataset", "split")})
    return Pair(group_id=row["group_id"], source=source, copies=[read_copy(row["copy"])])


def check_name(name: str) -> str:
    """Return ``name`` where it can be that of one folder or file. Raises KeyError where it cannot."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise KeyError(f"{name!r} is no name of a file")
    return name


def read_copy(values: Mapping[str, Any]) -> Copy:
    """Return the degraded copy in a record."""
    _require_texts(values, "path", "sha256")
    degradations = tuple(
        DegradationStep(
            **step | {"type": sys.intern(check_name(step["type"])), "level": sys.intern(step["level"])}
        )
        for step in values["degradations"]
    )
    return Copy(**{**values, "degradations": degradations})


def _require_texts(values: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(values[name], str):
            raise TypeError(f"{name} is {values[name]!r}, no text")


def read_judgement(row: Mapping[str, Any], *, place: int) -> Judgement:
    """Return the judgement in a record that begins at byte ``place``."""
    return Judgement(
        judge=sys.intern(row["judge"]),
        version=row["version"],
        verdict=read_verdict(row["verdict"]),
        failure=sys.intern(row["failure"]),
        place=place,
    )


def read_decision(row: Mapping[str, Any]) -> Decision:
    """Return the decision in a record."""
    return Decision(
        reviewer=sys.intern(row["reviewer"]),
        version=row["version"],
        answer=None if row["verdict"] is None else {word: word for word in ANSWERS}[row["verdict"]],
        time=row["time"],
    )


def read_verdict(value: Any) -> Verdict | None:
    """Return the verdict in a record; raises KeyError on any other word."""
    return None if value is None else {word: word for word in VERDICTS}[value]


def source_of(example: Example, *, split: str, path: str, sha256: str, size: tuple[int, int]) -> Source:
    """Return the source record of an example, its picture at ``path`` relative to the manifest."""
    return Source(
        example_id=example.id,
        dataset=example.dataset,
        split=split,
        path=path,
        sha256=sha256,
        width=size[0],
        height=size[1],
        mos=example.mos,
        mos_native=example.mos_native,
        higher_is_better=example.higher_is_better,
        mos_std=example.mos_std,
        reference=example.reference,
        labels=dict(example.labels),
    )


def _plain(record: Source | DegradationStep) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _copy_plain(copy: Copy) -> dict[str, Any]:
    return {
        "path": copy.path,
        "sha256": copy.sha256,
        "degradations": [_plain(step) for step in copy.degradations],
        "ssim": copy.ssim,
    }
