"""A tokenizer's folder gives the ids that stock ``AutoTokenizer`` gives, whatever its config says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.models.auto import tokenization_auto

from pretune.errors import CheckpointError
from pretune.text.stock_classes import (
    ALIASES,
    CHECKED_CLASSES,
    CLASS_BY_MODEL_TYPE,
    CLASSES,
    FIXED_MODEL_TYPES,
    GENERIC_CLASS,
    resolve_class,
)
from pretune.text.tokenizer import Tokenizer

PIECES = (
    "The ferry left the Harbour at noon", "a tenant's RENT", "naïve café Ångström ﬁne Ⅷ",
    "渡船中午离开了港口。", "當事人可以撤銷", "日本語テキスト", "😀👩‍👩‍👧 🇨🇳", "def f(x):\n\treturn x**2",
    "for(i=0;i<10;++i){}",
    " ", "  ", "\n\n", "\t", "\u00a0", "\u3000", "\u200b", "\x00", "\x07", "12345", "3.14e-5",
    "http://a.b/c?d=e", "don't", "``quoted''", "[MASK]", "[CLS]", "[SEP]", "<s>", "</s>", "<mask>", "<pad>",
    "<|endoftext|>", "<unk>", "<url>", "<Url>", "<own>", " <url> ", "<extra_id_0>", "<sep>", "<cls>", "<eop>",
    "▁", "##ing", "Ġ", "µ", "İstanbul", "straße", "اللغة", "हिन्दी", "e\u0301", "ﾊﾝｶｸ", "—", "…", "<own><url>",
    "x<url>y",
)  # fmt: skip
CORPUS = [" ".join(PIECES[:8]), *PIECES[:20], "the left rent noon of and café"] * 8
ADDED = {"<url>": 0, "<own>": 0}


def texts(count: int = 1000) -> list[str]:
    rng = random.Random(4)
    drawn = [
        "".join(rng.choice(PIECES) + rng.choice(("", "", " ")) for _ in range(rng.randint(1, 7)))
        for _ in range(count)
    ]
    return ["", *PIECES, *drawn]


TEXTS = texts()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLNET = ["<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]
FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = [*CORPUS, *(text.lower() for text in CORPUS)]
    tokenizer.train_from_iterator(
        words, trainers.WordPieceTrainer(vocab_size=420, special_tokens=SPECIAL, show_progress=False)
    )
    return tokenizer


def byte_level(special: list[str]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def gpt1() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def metaspace_bpe() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = description["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(description))


def unigram(first: list[str]) -> tokenizers.Tokenizer:
    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")
    ])  # fmt: skip
    trained.normalizer = normalizers.NFKC()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=first, unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator(CORPUS, trainer)
    return trained


BERT: tuple[dict[str, Any], ...] = (
    {},
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"cls_token": "<own>", "sep_token": {"content": "<sep>", "lstrip": False, "__type": "AddedToken"}},
    {"additional_special_tokens": ["<url>", "<own>"]},
    {"do_lower_case": False, "added_tokens_decoder": {
        "500": {"content": "<Url>", "lstrip": True, "rstrip": True, "normalized": False, "special": False,
                "single_word": False},
        "501": {"content": "<own>", "single_word": True, "lstrip": False, "rstrip": False, "normalized": True,
                "special": True},
    }},
)  # fmt: skip
BYTES: tuple[dict[str, Any], ...] = (
    {},
    {"add_prefix_space": True},
    {"add_bos_token": True, "add_eos_token": True, "bos_token": "<own>"},
    {"pad_token": "<pad>", "eos_token": "<own>", "extra_special_tokens": {"url_token": "<url>"}},
    {"added_tokens_decoder": {"7": {"content": "<own>", "special": True}, "3": {"content": "<url>"}}},
)
CASES: dict[str, tuple[str, Callable[[], tokenizers.Tokenizer], tuple[dict[str, Any], ...]]] = {
    "BertTokenizer": ("bert", wordpiece, BERT),
    "DistilBertTokenizerFast": ("distilbert", wordpiece, ({}, {"do_lower_case": False})),
    "GPT2Tokenizer": ("gpt2", lambda: byte_level(["<|endoftext|>"]), BYTES),
    "RobertaTokenizer": ("roberta", lambda: byte_level(FAIRSEQ), BYTES),
    "BartTokenizer": ("bart", lambda: byte_level(FAIRSEQ), ({}, {"add_prefix_space": True})),
    "GPTNeoXTokenizer": ("gpt_neox", lambda: byte_level(["<|endoftext|>", "<|padding|>"]), BYTES),
    "Qwen2Tokenizer": ("qwen2", lambda: byte_level(["<|endoftext|>"]), BYTES),
    "OpenAIGPTTokenizer": ("openai-gpt", gpt1, ({}, {"cls_token": "<cls>"})),
    "LlamaTokenizerFast": ("llama", metaspace_bpe, (
        {}, {"legacy": True}, {"legacy": False, "add_prefix_space": False}, {"add_bos_token": False},
        {"pad_token": "<pad>"},
    )),
    "T5Tokenizer": ("t5", lambda: unigram(["<pad>", "</s>", "<unk>"]), (
        {}, {"extra_ids": 3}, {"additional_special_tokens": ["<extra_id_0>", "<own>"], "extra_ids": 0},
    )),
    "XLNetTokenizer": ("xlnet", lambda: unigram(["<unk>", *XLNET]), (
        {}, {"do_lower_case": True}, {"additional_special_tokens": ["<own>"]},
    )),
    "XLMRobertaTokenizer": ("xlm-roberta", lambda: unigram(["<s>", "<pad>", "</s>", "<unk>"]), (
        {}, {"add_prefix_space": False}, {"mask_token": "<own>"},
    )),
    "PreTrainedTokenizerFast": ("gpt2", lambda: byte_level(["<|endoftext|>", "<url>"]), (
        {}, {"add_prefix_space": True, "pad_token": "<pad>"},
        {"added_tokens_decoder": {"1": {"content": "<url>", "lstrip": True, "special": True}}},
        {"split_special_tokens": True},
    )),
}  # fmt: skip
"""Class to a model type, a vocabulary for it, and configs."""
WITH_FILES = ("BertTokenizer", "GPT2Tokenizer", "RobertaTokenizer", "GPTNeoXTokenizer", "OpenAIGPTTokenizer",
              "Qwen2Tokenizer")  # fmt: skip


def configs(names: Iterable[str]) -> list[Any]:
    """Each class with the number of each of its configs."""
    pairs = [(name, number) for name in names for number in range(len(CASES[name][2]))]
    return [pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] > 1)) for pair in pairs]


def written(folder: Path, name: str, settings: dict[str, Any], *, older: bool = False, **more: Any) -> Path:
    """A folder of this class: ``tokenizer.json``, or the files from before it."""
    model_type, train, _ = CASES[name]
    tokenizer = train()
    folder.mkdir()
    if older:
        tokenizer.model.save(str(folder))
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
    for file, values in {
        "tokenizer_config.json": {"tokenizer_class": name, **settings},
        "config.json": {"model_type": model_type, "vocab_size": 1000},
        **more,
    }.items():
        (folder / file).write_text(json.dumps(values), encoding="utf-8")
    return folder


def check(folder: Path) -> transformers.TokenizersBackend:
    """The ids of a thousand texts, with and without the frame, and of pairs, are those of stock."""
    stock = transformers.AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    wanted = stock(TEXTS, add_special_tokens=False)["input_ids"]
    found = [item.ids.tolist() for item in ours.encode_batch(TEXTS, parse_specials=True)]
    for text, ids, theirs in zip(TEXTS, found, wanted, strict=True):
        assert ids == theirs, (text, [ours.id_to_token(i) for i in ids], stock.convert_ids_to_tokens(theirs))
    for text, other in (("The ferry", "left"), ("渡船", "noon")):
        first, second = (ours.encode(part).ids for part in (text, other))
        assert ours.add_special_tokens(first)[0].tolist() == stock(text)["input_ids"]
        pair = stock(text, other, return_token_type_ids=True)
        assert [part.tolist() for part in ours.add_special_tokens(first, second)] == [
            pair["input_ids"], pair["token_type_ids"]
        ]  # fmt: skip
    assert ours.vocabulary_size == len(stock)
    return stock


@pytest.mark.parametrize(
    ("name", "number"), [(n, k) for n, case in CASES.items() for k in range(len(case[2]))]
)
def test_the_config_beside_a_tokenizer_json_is_followed(name: str, number: int, tmp_path: Path) -> None:
    stock = check(written(tmp_path / "folder", name, CASES[name][2][number]))
    generic = name == "PreTrainedTokenizerFast"
    assert (type(stock).__name__ == "TokenizersBackend") == generic, "the class that it is about"


@pytest.mark.parametrize(("name", "number"), configs(WITH_FILES))
def test_older_files_are_read_by_their_config(name: str, number: int, tmp_path: Path) -> None:
    check(written(tmp_path / "folder", name, CASES[name][2][number], older=True))


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("older", [True, False])
def test_added_tokens_and_the_map_of_special_tokens_are_read(name: str, older: bool, tmp_path: Path) -> None:
    more = {
        "added_tokens.json": {"<own>": 1001, "<url>": 1000},
        "special_tokens_map.json": {"eos_token": "<own>", "pad_token": {"content": "<pad>", "lstrip": True}},
    }
    check(written(tmp_path / "folder", name, {"eos_token": "<s>"}, older=older, **more))


def test_what_pretune_saves_stock_reads_alike(tmp_path: Path) -> None:
    """Of each class: the saved folder has another tokenizer.json, and the same keys."""
    for name, (model_type, _, configs) in CASES.items():
        folder = written(tmp_path / name, name, configs[-1])
        Tokenizer.load(folder).save(tmp_path / f"{name}-saved")
        (tmp_path / f"{name}-saved" / "config.json").write_text(
            json.dumps({"model_type": model_type, "vocab_size": 1000})
        )
        check(tmp_path / f"{name}-saved")


def test_a_frame_of_ours_is_not_replaced_by_the_class(tmp_path: Path) -> None:
    """A tokenizer of another model, put in front of a decoder: stock must not frame as its class did."""
    folder = written(tmp_path / "bert", "BertTokenizer", {"eos_token": "[SEP]", "bos_token": "[CLS]"})
    Tokenizer.load(folder).with_template("start").save(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 1000}))
    stock = check(tmp_path / "saved")
    assert stock("The ferry")["input_ids"][0] == 2
    assert stock("The ferry")["input_ids"][-1] != 3


def test_the_class_of_a_folder_is_that_of_stock(tmp_path: Path) -> None:
    names = tokenization_auto.TOKENIZER_MAPPING_NAMES
    assert {key: (names[key] or "").removesuffix("Fast") for key in CLASS_BY_MODEL_TYPE} == {
        key: name or "TokenizersBackend" for key, name in CLASS_BY_MODEL_TYPE.items()
    }
    assert set(FIXED_MODEL_TYPES) <= tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    assert (
        not (set(CLASS_BY_MODEL_TYPE) & tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS)
        - FIXED_MODEL_TYPES
    )
    for declared in (*ALIASES, *CLASSES, *CHECKED_CLASSES):
        found = tokenization_auto.tokenizer_class_from_name(declared)
        ours = {cls.__name__ for cls in found.__mro__} & {*CLASSES, *CHECKED_CLASSES}
        assert {resolve_class(None, f"{declared}Fast", byte_level=False)} == ours, declared
    declared_classes = (
        "BertTokenizerFast",
        "GPT2Tokenizer",
        "PreTrainedTokenizerFast",
        "ElectraTokenizer",
        None,
    )
    for model_type in (
        "bert",
        "electra",
        "gpt2",
        "llama",
        "mistral",
        "modernbert",
        "qwen2",
        "qwen3",
        "olmo2",
    ):
        for number, declared in enumerate(declared_classes):
            folder = written(tmp_path / f"{model_type}-{number}", "GPT2Tokenizer", {}, **{
                "tokenizer_config.json": {} if declared is None else {"tokenizer_class": declared},
                "config.json": {"model_type": model_type},
            })  # fmt: skip
            stock = type(transformers.AutoTokenizer.from_pretrained(folder)).__name__
            assert resolve_class(model_type, declared, byte_level=True) == (
                GENERIC_CLASS if stock == "TokenizersBackend" else stock
            ), (model_type, declared)


def test_a_class_of_bytes_for_llama_is_the_file(tmp_path: Path) -> None:
    folder = written(tmp_path / "folder", "GPT2Tokenizer", {"tokenizer_class": "LlamaTokenizerFast"})
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    check(folder)


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("PreTrainedTokenizerFast", {"tokenizer_class": "DebertaTokenizer", "add_prefix_space": True},
         "add_prefix_space = True, but tokenizer.json says False"),
        ("BertTokenizer", {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True},
         "do_lower_case = True, but tokenizer.json says False"),
        ("BertTokenizer", {"tokenizer_class": "T5Tokenizer"}, "T5Tokenizer, which needs a Unigram"),
        ("GPT2Tokenizer", {"added_tokens_decoder": {"x": {"content": "a"}}}, "added tokens {'x'"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_by_its_key(
    name: str, settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "folder", name, settings)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=named):
        Tokenizer.load(folder)


def test_sentencepiece_alone_is_named(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(b"\0")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    with pytest.raises(CheckpointError, match=r"spiece.model alone is not read, save it as tokenizer.json"):
        Tokenizer.load(tmp_path)


def test_no_special_token_is_added_that_the_model_has_no_row_for(tmp_path: Path) -> None:
    """Stock adds the class's own; a model whose embedding ends before them is read all the same."""
    folder = written(tmp_path / "folder", "T5Tokenizer", {})
    assert Tokenizer.load(folder).vocabulary_size == len(transformers.AutoTokenizer.from_pretrained(folder))
    size = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert Tokenizer.load(folder, len(size)).vocabulary_size == len(size)
    assert AddedToken("<extra_id_0>").content not in Tokenizer.load(folder, len(size))._backend.get_vocab()
