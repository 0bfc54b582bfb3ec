"""A tiny causal model that transformers made, with a vocabulary of English and Chinese."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune.text.training import train_byte_bpe

TEXT = "The captain saw the harbour, and the fishermen were home. 渔夫看见港口，船长回家了。\n" * 20
PROMPTS = (
    "The captain", "The", "and the fishermen were home again, the captain saw", "a", "Zyx 123!", "home.",
    "saw the harbour", "0.5", "the the the", "The captain saw the harbour, and",
    "渔夫", "船长回家了。渔夫看见", "港口，", "了", "看见港口", "𠮷野家", "渔夫看见港口，船长回家了。", "龘",
    "回家", "，",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """The same weights, read by us and by stock transformers."""

    folder: Path
    ours: pretune.Model
    stock: Any
    reader: Any
    prompts: tuple[str, ...] = PROMPTS

    def stock_ids(self, prompts: list[str], **settings: Any) -> list[list[int]]:
        """What stock writes behind each prompt, up to the token that ends it."""
        inputs = self.reader(prompts, return_tensors="pt", padding=len(prompts) > 1)
        found = self.stock.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :].tolist()
        ends = set(self.ours.generation_config.eos_ids)
        return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in found]


@pytest.fixture(scope="session")
def pair(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_byte_bpe([TEXT], 400).with_template("start")
    tokenizer.save(folder)
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocabulary_size, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3,
        bos_token_id=tokenizer.specials.bos_id, eos_token_id=[tokenizer.specials.eos_id, 17],
        pad_token_id=tokenizer.specials.pad_id, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    stock = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    reader = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    return Pair(folder, pretune.load(folder), stock, reader)
