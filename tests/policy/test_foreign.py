"""Checkpoints of others: their code is not run, and their chat templates have bounds."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from qhk.errors import UserError
from qhk.policy import template
from qhk.policy.load import CHAT, Policy, load_policy, save_policy
from qhk.policy.template import render_chat
from qhk.policy.tokenizer import CHAT_TEMPLATE
from tests.conftest import build_policy

CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
raise SystemExit("foreign code")
"""
CLASSES = {
    "config.json": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
    "tokenizer_config.json": {"AutoTokenizer": ["evil.Slow", "evil.Fast"]},
    "preprocessor_config.json": {"AutoImageProcessor": "evil.Processor", "AutoProcessor": "evil.Both"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint; whoever asks on stdin fails the test."""

    def no_one(*question: object) -> None:
        pytest.fail(f"asked: {question}")  # no Exception: transformers would catch one

    monkeypatch.setattr(builtins, "input", no_one)
    save_policy(build_policy(dtype=torch.float32), tmp_path)
    return tmp_path


def load(folder: Path) -> Policy:
    return load_policy(str(folder), dtype="float32", min_pixels=256, max_pixels=4096, device="cpu")


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_code_beside_the_weights_is_never_run(folder: Path) -> None:
    """Stock classes do without it."""
    (folder / "evil.py").write_text(CODE)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE)
    for name, classes in CLASSES.items():
        change(folder / name, auto_map=classes)
    change(folder / "config.json", attn_implementation="someone/kernel")
    assert load(folder).num_parameters == build_policy(dtype=torch.float32).num_parameters
    assert not list(folder.rglob("ran"))


def test_code_that_a_checkpoint_cannot_do_without_is_one_line(folder: Path) -> None:
    (folder / "evil.py").write_text(CODE)
    change(
        folder / "tokenizer_config.json",
        auto_map=CLASSES["tokenizer_config.json"],
        tokenizer_class="EvilTokenizer",
    )
    change(folder / "config.json", model_type="evil", auto_map=CLASSES["config.json"])
    with pytest.raises(UserError, match=r"^model.path: \S+ brings code of its own, which is never run; .*$"):
        load(folder)
    assert not list(folder.rglob("ran"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "does not end within 1 s",
        ),
        ("{{ 'a' * 10 ** 10 }}", "needs more than 1 GiB of memory"),
        ("{{ 'a' * 10 ** 7 }}", "makes a prompt of 10000000 characters, the most is 1000000"),
        ("{{ raise_exception('one\nand two') }}", r"fails \(TemplateError: one and two\)"),
    ],
)
def test_a_template_that_does_not_work_is_one_line(
    monkeypatch: pytest.MonkeyPatch, text: str, line: str
) -> None:
    if "within 1 s" in line:
        monkeypatch.setattr(template, "MAX_CPU_S", 1)
    tokenizer = build_policy(dtype=torch.float32).tokenizer
    tokenizer.chat_template = text
    with pytest.raises(UserError, match=f"^model.path: the chat template of .* {line}; correct .*$"):
        render_chat(tokenizer, CHAT, own=CHAT_TEMPLATE)


def test_a_template_is_tried_before_the_weights_are_read(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"the chat template of \S+ fails \(TemplateError: no\)"):
        load(folder)
    with pytest.raises(UserError, match="is missing; give a checkpoint that has one"):
        tokenizer = build_policy(dtype=torch.float32).tokenizer
        tokenizer.chat_template = None
        render_chat(tokenizer, CHAT, own=CHAT_TEMPLATE)


def test_a_process_of_its_own_renders_what_transformers_does() -> None:
    tokenizer = build_policy(dtype=torch.float32).tokenizer
    tokenizer.chat_template = (
        CHAT_TEMPLATE
        + "{{ eos_token }}{{ pad_token }}{% if tools %}tools{% endif %}{{ messages | tojson }}\n é\x1b"
    )
    chat = [{"role": "system", "content": "Ünï <b>\u2028"}, *CHAT]
    expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert render_chat(tokenizer, chat, own=CHAT_TEMPLATE) == expected


def test_a_process_that_does_not_start_is_no_fault_of_the_template(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "transformers.py").write_text("raise ImportError('libjinja is gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    tokenizer = build_policy(dtype=torch.float32).tokenizer
    tokenizer.chat_template = "another {{ messages[0].content }}"
    with pytest.raises(UserError, match=r"does not start \(ImportError: libjinja is gone\): .* repair"):
        render_chat(tokenizer, CHAT, own=CHAT_TEMPLATE)
    monkeypatch.undo()
    assert render_chat(tokenizer, CHAT, own=CHAT_TEMPLATE).startswith("another ")
