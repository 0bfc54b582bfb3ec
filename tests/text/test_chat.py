"""Chat templates are written as stock ``apply_chat_template`` writes them, and bounded: they are programs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import transformers

from pretune.errors import CheckpointError, UsageError
from pretune.text import chat, chat_process
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import train_byte_bpe

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% if messages[0]['role'] != 'user' %}{{ raise_exception('no') }}{% endif %}"
    "{%- for m in messages %}\n    {%- if loop.index0 > 3 %}{% break %}{% endif %}\n"
    "    [INST] {{ m.content | trim }} [/INST]\n{%- endfor %}{{ pad_token }}|{{ mask_token }}|"
)
ODD = (
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    "{{ messages | tojson }}{{ messages | tojson(indent=2) }}{{ tools is none }}{{ documents }}"
    "{% generation %}told{% endgeneration %}{{ dict(a=1) }}{{ strftime_now('%Y') }}\n"
    "{% if true %}\n  x\n{% endif %}"
)
PROMPTS = ('Who wrote <Hamlet> & "Lear"?', "  渡船 😀\n", "<|im_end|>", "{{ 1 + 1 }}{% for %}", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chat")
    train_byte_bpe(["The ferry left. 渡船。 user assistant INST" * 9], 300).save(folder)
    return folder


@pytest.mark.parametrize("template", [CHATML, LLAMA, ODD])
def test_a_prompt_is_written_as_stock_writes_it(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    ours, stock = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    found = chat.render_prompts(ours.chat_template, ours.special_tokens, PROMPTS)
    for prompt, text in zip(PROMPTS, found, strict=True):
        messages = [{"role": "user", "content": prompt}]
        assert text == stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = stock.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert ours.encode(text, parse_specials=True).ids.tolist() == ids


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{% for", "TemplateSyntaxError"),
        ("{{ raise_exception('only systems') }}", "TemplateError: only systems"),
        ("{{ messages[9].content.x.y }}", "UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError|UndefinedError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "SecurityError|TemplateError|begins so"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ ('x' * 600000) ~ ('x' * 600000) }}", "more than 1,048,576 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 'x' * 10**11 }}", "MemoryError|OverflowError|1024 MiB"),
        ("{{ raise_exception('x' * 100000) }}", "TemplateError: x{200,300}$"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(template: str, named: str) -> None:
    with pytest.raises(CheckpointError, match=f"^chat template: .*({named})"):
        chat.render_prompts(template, {}, ["Hello"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='xx') %}{% for a in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    ],
)
def test_a_template_that_does_not_end_is_stopped(template: str) -> None:
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=r"chat template: .*(stopped|MemoryError)"):
        chat.render_prompts(template, {}, ["Hello"])
    assert time.monotonic() - began < chat.TIMEOUT_SECONDS + 5


def test_a_model_without_a_template_says_so() -> None:
    with pytest.raises(UsageError, match="has no chat template: leave chat out"):
        chat.render_prompts(None, {}, ["Hello"])


def test_the_process_imports_nothing_of_ours() -> None:
    assert "pretune" not in Path(chat_process.__file__).read_text(encoding="utf-8").split('"""', 2)[2]
