"""Judges that say which pairs look the same; every answer is on disk before the next question."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from qhk.data.image import load_image
from qhk.errors import UserError
from qhk.pairs.manifest import PairManifest
from qhk.pairs.records import Pair, Verdict, judgement_row
from qhk.pairs.similarity import structural


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A judge's answer about one pair: ``verdict``, or None with the reason of the failure.

    ``version`` is the copy that was shown; another process may have made a newer one meanwhile.
    ``reply`` is the text as it came, None where there is none to keep; ``more`` goes into the record. In it,
    ``confidence`` in [0, 1] orders pairs for review, where a judge has one.
    """

    pair: Pair
    version: int
    verdict: Verdict | None
    failure: str
    reply: str | None
    more: Mapping[str, Any] = field(default_factory=dict)


REFUSALS = re.compile(
    r"\b(i['’]?m sorry|i am sorry|i can(?:['’]?t|not)|unable to|as an ai|i won['’]?t)\b", re.IGNORECASE
)

Emit = Callable[[Sequence[Judged]], None]
"""Takes complete answers; they are on disk when it returns."""

TOGETHER = 256
"""Answers of the threshold that are written together: they cost nothing to compute again."""


class Judge(Protocol):
    """Looks at pairs in any order and hands over every answer as soon as it is there."""

    name: str

    def judge(self, pairs: Sequence[Pair], emit: Emit) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """What ``filter_pairs`` did: answers by verdict, failures by reason, tokens and their price.

    ``before`` counts pairs that this judge had answered on already.
    """

    verdicts: Mapping[str, int]
    failures: Mapping[str, int]
    before: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


def filter_pairs(
    manifest: PairManifest,
    judge: Judge,
    *,
    limit: int | None,
    price: tuple[float, float],
    progress: Callable[[int, int, float], None],
) -> Filtered:
    """Ask ``judge`` about every pair whose newest copy it has no answer on; failures are asked again.

    ``price`` is per million prompt and completion tokens; ``limit`` bounds the pairs of this call.
    ``progress`` is called with (judged, in all, cost so far) after every answer. Answers given before an
    interruption are kept.
    """
    open_, before = unanswered(manifest, judge.name)
    open_ = open_ if limit is None else open_[:limit]
    verdicts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    progress(0, len(open_), 0.0)

    def cost() -> float:
        return (tokens["prompt_tokens"] * price[0] + tokens["completion_tokens"] * price[1]) / 1e6

    def emit(answers: Sequence[Judged]) -> None:
        manifest.append([_row(judge.name, answer) for answer in answers])
        for key in ("prompt_tokens", "completion_tokens"):
            tokens[key] += sum(int(answer.more.get(key) or 0) for answer in answers)
        verdicts.update(answer.verdict for answer in answers if answer.verdict is not None)
        failures.update(answer.failure for answer in answers if answer.verdict is None)
        progress(verdicts.total() + failures.total(), len(open_), cost())

    judge.judge(open_, emit)
    return Filtered(
        verdicts=dict(verdicts),
        failures=dict(failures),
        before=before,
        prompt_tokens=tokens["prompt_tokens"],
        completion_tokens=tokens["completion_tokens"],
        cost=cost(),
    )


def _row(judge: str, answer: Judged) -> dict[str, Any]:
    return judgement_row(
        answer.pair,
        version=answer.version,
        judge=judge,
        verdict=answer.verdict,
        reply=answer.reply,
        failure=answer.failure,
        **answer.more,
    )


def unanswered(manifest: PairManifest, judge: str) -> tuple[list[Pair], int]:
    """Return the pairs whose newest copy ``judge`` has no answer on, and how many it has one on."""
    left = []
    for pair in manifest:
        answer = pair.judgements.get((judge, pair.copy.version))
        if answer is None or answer.verdict is None:
            left.append(pair)
    return left, len(manifest) - len(left)


def load_pair(manifest: PairManifest, pair: Pair, *, version: int) -> tuple[Any, Any]:
    """Return the original and the copy of ``version`` as RGB. Raises ``UserError`` naming a bad file."""
    original, copy = (
        load_image(manifest.source_path(pair)),
        load_image(manifest.copy_path(pair, version=version)),
    )
    if original.size != copy.size:
        raise UserError(
            f"{manifest.copy_path(pair, version=version)}: {copy.width}x{copy.height}, its original is "
            f"{original.width}x{original.height}: restore the files that degrade wrote"
        )
    return original, copy


def failed_answer(pair: Pair, version: int, error: ValueError) -> Judged:
    """Return the failure of a pair whose pictures cannot be shown."""
    reason = " ".join(str(error).split())
    return Judged(pair=pair, version=version, verdict=None, failure=reason, reply=None)


class SimilarityJudge:
    """No model: calls a pair the same where its structural similarity is at least ``threshold``.

    A stand-in for trials and tests. It measures what was done to the pixels, not what people see: the
    same SSIM may be plain in one picture and invisible in another.
    """

    def __init__(self, manifest: PairManifest, *, threshold: float) -> None:
        self.manifest, self.threshold = manifest, threshold
        self.name = f"ssim>={threshold:g} (no model)"

    def judge(self, pairs: Sequence[Pair], emit: Emit) -> None:
        """Emit one answer per pair; a file that cannot be read is a failure."""
        for start in range(0, len(pairs), TOGETHER):
            emit([self._answer(pair) for pair in pairs[start : start + TOGETHER]])

    def _answer(self, pair: Pair) -> Judged:
        version, similarity = pair.copy.version, pair.copy.ssim
        if similarity is None:
            try:
                similarity = structural(*load_pair(self.manifest, pair, version=version))
            except ValueError as error:
                return failed_answer(pair, version, error)
        verdict: Verdict = "same" if similarity >= self.threshold else "different"
        more = {"ssim": similarity, "confidence": abs(similarity - self.threshold)}
        return Judged(pair=pair, version=version, verdict=verdict, failure="", reply=None, more=more)


def question_digest(question: str, **values: Any) -> str:
    """Return six hexadecimal digits of the question and ``values``.

    They are part of a judge's name: one that is asked another question is another judge."""
    text = json.dumps([question, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def pair_messages(question: str) -> list[dict[str, Any]]:
    """Return one user turn in the layout of chat templates: the original, the copy, the question."""
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def read_answer(text: str) -> tuple[Verdict | None, str]:
    """Return the verdict in a reply (yes: same, no: different) and, where there is none, why.

    The last ``<answer>`` part counts where there is one, else the whole reply. It must begin with yes or
    no, in any case and behind any punctuation; whatever else is a failure and no answer.
    """
    parts = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE)
    said = parts[-1] if parts else text
    words = re.findall(r"[^\W\d_]+", said.lower())
    if not words:
        return None, "empty reply"
    if words[0] == "yes" and "no" not in words:
        return "same", ""
    if words[0] == "no" and "yes" not in words:
        return "different", ""
    if REFUSALS.search(said):
        return None, "refused"
    return None, "neither yes nor no"
