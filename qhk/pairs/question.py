"""What a vision-language judge is asked about a pair, and how its answer is read."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from qhk.pairs.records import Verdict

REFUSALS = re.compile(
    r"\b(i['’]?m sorry|i am sorry|i can(?:['’]?t|not)|unable to|as an ai|i won['’]?t)\b", re.IGNORECASE
)


def question_digest(question: str, **values: Any) -> str:
    """Six hexadecimal digits: a judge asked otherwise is another judge, and its words are kept apart."""
    text = json.dumps([question, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def pair_messages(question: str) -> list[dict[str, Any]]:
    """One user turn in the layout of chat templates: the original, the copy, the question."""
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def read_answer(text: str) -> tuple[Verdict | None, str]:
    """The verdict in a reply (yes: same, no: different) and, where there is none, why.

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
