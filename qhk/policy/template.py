"""A checkpoint's chat template, which is a program: rendered in a process of its own, within bounds.

``python -m qhk.policy.template`` is that process. It reads one JSON object and writes another.
"""

from __future__ import annotations

import json
import math
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from qhk.errors import UserError

MAX_CPU_S = 10
"""Qwen's template takes milliseconds."""

MAX_BYTES = 1 << 30
"""Of memory, beyond what the process has before it renders."""

MAX_CHARS = 1_000_000

BEGUN = "begun"
"""The first line of the process: all is imported, what happens from here on is the template's doing."""


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, own: str) -> str:
    """Return what the tokenizer's chat template makes of ``messages``, the assistant's turn opened.

    Nothing but the turn: templates of thinking models open a thought, too, which is the policy's to write
    here, since whether it reasons before it answers is said by the wording of the prompt.

    A template that is ``own`` is rendered here, any other one in a process with bounds. Raises
    ``UserError``, one line, where there is no template, it fails, or it exceeds a bound.
    """
    if tokenizer.chat_template == own:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return text
    where = f"model.path: the chat template of {tokenizer.name_or_path}"
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        raise UserError(f"{where} is missing; give a checkpoint that has one") from None
    plain = json.dumps([template, list(messages), tokenizer.special_tokens_map, MAX_CPU_S], default=str)
    text, problem = _rendered(plain)
    if problem:
        raise UserError(f"{where} {problem}; correct the template, or give another checkpoint")
    return re.sub(r"<think>\s*\Z", "", text)


@lru_cache(maxsize=256)
def _rendered(job: str) -> tuple[str, str]:
    """Return the text and, where there is none, what the template did.

    Raises ``UserError`` where the process ends before it has a template to render: that is not its fault.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__], input=job, capture_output=True, text=True, check=False
    )
    begun, _, answer = done.stdout.partition("\n")
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if begun != BEGUN:
        raise UserError(
            f"the process that renders chat templates does not start ({said[:200]}): python -m {__name__} "
            "must be able to import transformers and jinja2; repair the installation, or free memory"
        )
    if done.returncode == -signal.SIGXCPU:
        return "", f"does not end within {MAX_CPU_S} s"
    try:
        text, problem = json.loads(answer)
    except ValueError:
        return "", f"ends its process (exit code {done.returncode}: {said[:200]})"
    return text, problem


def _main() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template, messages, special_tokens, max_cpu_s = json.load(sys.stdin)
    render_jinja_template(conversations=[messages], chat_template="-")  # loads all that rendering needs
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = math.ceil(used.ru_utime + used.ru_stime) + max_cpu_s
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: pages * resource.getpagesize() + MAX_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        # The hard limit of the CPU is a second later: at the soft one the signal tells why.
        resource.setrlimit(kind, (limit, limit + (kind == resource.RLIMIT_CPU)))
    print(BEGUN, flush=True)
    text, problem = "", ""
    try:
        rendered = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=True, **special_tokens
        )
        text = rendered[0][0]  # of the first chat, before the places of answers
    except MemoryError:
        problem = f"needs more than {MAX_BYTES >> 30} GiB of memory"
    except Exception as error:  # whatever a foreign program may raise
        problem = f"fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if len(text) > MAX_CHARS:
        text, problem = "", f"makes a prompt of {len(text)} characters, the most is {MAX_CHARS}"
    print(json.dumps([text, problem]))


if __name__ == "__main__":
    _main()
