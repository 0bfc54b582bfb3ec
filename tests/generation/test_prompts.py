"""Special tokens in a prompt are read as stock reads them; a chat template is said, offered and used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken
from typer.testing import CliRunner, Result

import pretune
from pretune.cli.main import app
from pretune.errors import CheckpointError, ConfigError, UsageError
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import train_byte_bpe
from pretune.workflows.generate import generate_file

GREEDY = Sampling(temperature=0)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = (
    "<|im_start|>user\nHello<|im_end|>\n",
    "The ferry<|im_end|>",
    "<|im_start|>",
    "渡船 <|endoftext|> x",
    "The",
)


@pytest.fixture(scope="module")
def folder(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instruct")
    tokenizer = train_byte_bpe(["The ferry left the harbour. user assistant Hello 渡船。" * 20], 320)
    backend = tokenizer._backend
    backend.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    tokenizer = Tokenizer(backend, {"eos_token": "<|im_end|>", "chat_template": TEMPLATE})
    tokenizer.save(folder)
    torch.manual_seed(5)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=tokenizer.vocabulary_size, n_embd=32, n_layer=2, n_head=4, n_positions=96,
        bos_token_id=0, eos_token_id=tokenizer.token_to_id("<|im_end|>"), tie_word_embeddings=False,
    ))  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return folder


def ids(model: pretune.Model, prompt: str, **settings: Any) -> list[int]:
    found = model.generate_batch([prompt], Decoding(sampling=GREEDY, max_new_tokens=10, **settings))
    return list(found[0][0].tokens)


def stock_ids(folder: Path, inputs: Any) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    row = model.generate(**inputs, max_new_tokens=10, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ].tolist()
    end = model.generation_config.eos_token_id
    return row[: row.index(end)] if end in row else row


def test_special_tokens_of_a_prompt_are_those_of_stock(folder: Path) -> None:
    model, reader = pretune.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for prompt in PROMPTS:
        assert ids(model, prompt) == stock_ids(folder, reader(prompt, return_tensors="pt"))
        literal = reader(prompt, return_tensors="pt", split_special_tokens=True)
        assert ids(model, prompt, split_special_tokens=True) == stock_ids(folder, literal)


def test_the_chat_template_gives_what_stock_gives(folder: Path) -> None:
    model, reader = pretune.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for prompt in ("Hello", "渡船。\n", "The <|im_end|> ferry"):
        inputs = reader.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        assert ids(model, prompt, apply_chat_template=True) == stock_ids(folder, inputs)
    settings: dict[str, Any] = {"sampling": GREEDY, "max_new_tokens": 10, "apply_chat_template": True}
    assert "".join(model.stream("Hello", **settings)) == model.generate("Hello", **settings)
    assert model.generate("Hello", **settings) != model.generate(
        "Hello", **{**settings, "apply_chat_template": False}
    )


def test_other_verbs_read_text_as_text(folder: Path) -> None:
    """What a stranger wrote into a corpus or a record is no command."""
    tokenizer = pretune.load(folder).tokenizer
    assert tokenizer.token_to_id("<|im_end|>") not in tokenizer.encode("a <|im_end|> b").ids.tolist()
    plain, scored = pretune.load(folder).score("ab"), pretune.load(folder).score("a<|im_end|>b")
    assert len(scored.tokens) > len(plain.tokens) + 3


def typed(*words: str) -> Result:
    return CliRunner().invoke(app, ["generate", *words, "--temperature", "0", "--max-new-tokens", "6"])


def test_the_command_line_offers_the_template(folder: Path, tmp_path: Path) -> None:
    offer = "this model has a chat template: --apply-chat-template"
    assert offer in typed(str(folder), "Hello").stderr
    assert offer not in typed(str(folder), "Hello", "--split-special-tokens").stderr
    asked = typed(str(folder), "Hello", "--apply-chat-template")
    assert offer not in asked.stderr
    model = pretune.load(folder)
    said = model.generate("Hello", apply_chat_template=True, sampling=GREEDY, max_new_tokens=6)
    assert asked.stdout == said.replace("\x1b", "\N{SYMBOL FOR ESCAPE}") + "\n"
    answer = json.loads(typed(str(folder), "Hello", "--json").stdout)
    assert answer["notes"][0].startswith(offer)
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"text": "Hello"}\n')
    generate_file(
        folder, data=data, out=tmp_path / "out.jsonl",
        options={"apply_chat_template": True, "temperature": 0.0, "max_new_tokens": 6},
    )  # fmt: skip
    assert json.loads((tmp_path / "out.jsonl").read_text())["continuations"][0]["text"] == said


def test_what_cannot_be_asked_is_refused(folder: Path, tmp_path: Path) -> None:
    model = pretune.load(folder)
    with pytest.raises(ConfigError, match="split_special_tokens and apply_chat_template exclude each other"):
        model.generate("Hello", split_special_tokens=True, apply_chat_template=True)
    plain = shutil.copytree(folder, tmp_path / "plain")
    config = json.loads((plain / "tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    with pytest.raises(UsageError, match="has no chat template"):
        pretune.load(plain).generate("Hello", apply_chat_template=True)
    (plain / "chat_template.jinja").write_text("{{ raise_exception('systems only') }}")
    with pytest.raises(CheckpointError, match="systems only"):
        pretune.load(plain).generate("Hello", apply_chat_template=True)


def test_a_model_that_ends_at_once_says_so(folder: Path, tmp_path: Path) -> None:
    """As an instruct model does that is given a plain prompt."""
    mute = shutil.copytree(folder, tmp_path / "mute")
    model = transformers.AutoModelForCausalLM.from_pretrained(mute)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[model.config.eos_token_id] = 1.0
    model.save_pretrained(mute)
    alone = typed(str(mute), "Hello")
    assert alone.stdout == "Hello\n"
    assert "the model ended at once (0 tokens)" in alone.stderr
    assert "this model has a chat template: --apply-chat-template" in alone.stderr
    assert "ended at once (0 tokens) in 2 of 2 texts" in typed(str(mute), "Hello", "The").stderr
    assert "the model ended at once (0 tokens)" in typed(str(mute), "Hello", "--stream").stderr
    assert "ended at once" not in typed(str(folder), "The ferry left").stderr
    notes = json.loads(typed(str(mute), "Hello", "--json").stdout)["notes"]
    assert notes[-1] == "the model ended at once (0 tokens)"
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"text": "Hello"}\n{"text": "The"}\n')
    assert generate_file(mute, data=data, out=tmp_path / "out.jsonl")["num_empty"] == 2
    answered = CliRunner().invoke(app, ["predict", str(mute), "Hello", "--max-new-tokens", "3"])
    assert "1 of 1 continuations are empty: the model ended at once" in answered.stderr
