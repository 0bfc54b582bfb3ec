"""Tiny masked models that transformers made, with WordPiece, byte-level BPE and Unigram vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

import pretune
from pretune.text.tokenizer import Tokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "the", "king", "queen", "saw", "a", "castle", "and", "shepherd", "far", "##m", "##mer", "cap", "##tain",
    "##s", ".", ",", "was", "old", "我", "爱", "你", "国", "王", "后", "。", "##国", "dog", "house", "##ed",
]  # fmt: skip
TEXTS = ["the king saw a castle and the queen was old .", "the shepherd saw the farmer , the captains .",
         "我爱你。国王爱王后。"] * 30  # fmt: skip


def word_piece() -> Backend:
    vocabulary = {word: id for id, word in enumerate([*SPECIALS, *WORDS])}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return finished(backend, lstrip=False)


def byte_level() -> Backend:
    from tokenizers.trainers import BpeTrainer

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=330, special_tokens=SPECIALS, show_progress=False,
                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    backend.train_from_iterator(TEXTS, trainer)
    return finished(backend, lstrip=True)


def unigram() -> Backend:
    pieces = dict.fromkeys(SPECIALS, 0.0) | {"▁": -5.0}
    for word in WORDS:
        pieces[word.removeprefix("##") if word.startswith("##") or not word.isascii() else f"▁{word}"] = -3.0
    for letter in "abcdefghijklmnopqrstuvwxyz.,":
        pieces.setdefault(letter, -8.0)
    backend = Backend(models.Unigram(list(pieces.items()), unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return finished(backend, lstrip=True)


def finished(backend: Backend, *, lstrip: bool) -> Backend:
    added = [AddedToken(name, special=True, normalized=False) for name in SPECIALS[:-1]]
    backend.add_special_tokens([*added, AddedToken("[MASK]", special=True, normalized=False, lstrip=lstrip)])
    ids = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return backend


VOCABULARIES = {"wordpiece": word_piece, "byte-level": byte_level, "unigram": unigram}


@dataclass(frozen=True)
class Masked:
    """The same weights, read by us and by stock transformers."""

    folder: Path
    ours: pretune.Model
    stock: Any
    reader: Any


@pytest.fixture(scope="session", params=VOCABULARIES, ids=str)
def masked(
    request: pytest.FixtureRequest, one_thread: None, tmp_path_factory: pytest.TempPathFactory
) -> Masked:
    folder = tmp_path_factory.mktemp("masked")
    Tokenizer(VOCABULARIES[request.param](), {"do_lower_case": True}).save(folder)
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(reader), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=40, initializer_range=0.5,
    )  # fmt: skip
    stock = transformers.BertForMaskedLM(config).eval()
    stock.save_pretrained(folder)
    return Masked(folder, pretune.load(folder), stock, reader)
