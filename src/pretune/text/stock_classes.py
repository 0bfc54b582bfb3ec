"""The tokenizer classes of stock transformers: what each makes of a vocabulary and of tokenizer_config.json.

Most take no more than the vocabulary and the merges of a ``tokenizer.json``, and cut and normalise a text as
the class and the keys of the config say (transformers 5; earlier ones took all of the file).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

Vocabulary = Any
"""Token to id, pieces with their scores, or the path of a file of them."""
Processor = Any

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 cuts a text before it looks for tokens."""


@dataclass(frozen=True, slots=True)
class VocabularyData:
    """What a class is handed of a folder."""

    vocabulary: Vocabulary
    merges: Any = None
    precompiled_charsmap: bytes | None = None
    """SentencePiece's table of how characters are normalised."""


@dataclass(frozen=True, slots=True)
class StockClass:
    """A tokenizer class."""

    model: str
    """``WordPiece``, ``BPE`` or ``Unigram``."""
    build: Callable[[VocabularyData, Mapping[str, Any]], tokenizers.Tokenizer]
    """The tokenizer without added tokens and without a frame."""
    special_tokens: Mapping[str, str | None] = field(default_factory=dict)
    """Its special tokens where the config names no others."""
    files: tuple[str, ...] = ()
    """Where its vocabulary is without a ``tokenizer.json``; none: in files that pretune does not read."""
    post_processor: Callable[[Mapping[str, str], Callable[[str], int]], Processor] | None = None
    """What it puts around a text, of its special tokens and their ids; None: what ``tokenizer.json`` says."""
    ignores_post_processor: bool = False
    """Does it put around a text what its ``add_bos_token`` says, whatever ``tokenizer.json`` does?"""
    adds_special_tokens_again: bool = False
    """Are its special tokens added once more, without the flags of the config (such as ``lstrip``)?"""
    extra_special_tokens: Callable[[Mapping[str, Any]], list[str]] = lambda settings: []
    """Further special tokens where the config names no others."""


def _bert(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    unknown = settings["unk_token"]
    backend = tokenizers.Tokenizer(
        models.WordPiece.from_file(data.vocabulary, unk_token=unknown)
        if isinstance(data.vocabulary, str)
        else models.WordPiece(data.vocabulary, unk_token=unknown)
    )
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _bert_post_processor(special_tokens: Mapping[str, str], token_to_id: Callable[[str], int]) -> Processor:
    first, last = special_tokens["cls_token"], special_tokens["sep_token"]
    return processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(first, token_to_id(first)), (last, token_to_id(last))],
    )


def _bpe(data: VocabularyData, **settings: Any) -> tokenizers.Tokenizer:
    if isinstance(data.vocabulary, str):
        return tokenizers.Tokenizer(models.BPE.from_file(data.vocabulary, data.merges, **settings))
    return tokenizers.Tokenizer(models.BPE(data.vocabulary, data.merges, **settings))


def _byte_level(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _bpe(data, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    prefix = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    return backend


def _roberta_post_processor(
    special_tokens: Mapping[str, str], token_to_id: Callable[[str], int]
) -> Processor:
    first, last = special_tokens["cls_token"], special_tokens["sep_token"]
    return processors.RobertaProcessing(
        (last, token_to_id(last)), (first, token_to_id(first)), add_prefix_space=False
    )


def _gpt_neox(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _byte_level(data, settings)
    backend.normalizer = normalizers.NFC()
    return backend


def _qwen2(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _gpt_neox(data, settings)
    prefix = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
    ])  # fmt: skip
    return backend


def _gpt1(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _bpe(data, end_of_word_suffix="</w>", fuse_unk=False, unk_token=settings["unk_token"])
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def _llama(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _bpe(data, fuse_unk=True, byte_fallback=True)
    prefix = settings.get("add_prefix_space")
    prefix = True if prefix is None else bool(prefix)
    scheme = ("always" if settings.get("legacy", False) else "first") if prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + ([decoders.Strip(content=" ", left=1)] if prefix else []))
    return backend


def _unigram(data: VocabularyData, unk_id: int, scheme: str) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram(data.vocabulary, unk_id=unk_id, byte_fallback=False))
    if data.precompiled_charsmap is not None:
        backend.normalizer = normalizers.Precompiled(data.precompiled_charsmap)
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)
    ])  # fmt: skip
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return backend


def _t5(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    return _unigram(data, 2, "always")


def _t5_post_processor(special_tokens: Mapping[str, str], token_to_id: Callable[[str], int]) -> Processor:
    return processors.TemplateProcessing(
        single=["$A", "</s>"],
        pair=["$A", "</s>", "$B", "</s>"],
        special_tokens=[("</s>", token_to_id(special_tokens["eos_token"]))],
    )


def _t5_extra_special_tokens(settings: Mapping[str, Any]) -> list[str]:
    return [f"<extra_id_{number}>" for number in range(settings.get("extra_ids", 100))]


def _xlnet(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _unigram(data, settings.get("unk_id", 0), "always")
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if settings.get("do_lower_case", False) else []
    steps += [] if data.precompiled_charsmap is None else [normalizers.Precompiled(data.precompiled_charsmap)]
    backend.normalizer = normalizers.Sequence(steps)
    return backend


def _xlnet_post_processor(special_tokens: Mapping[str, str], token_to_id: Callable[[str], int]) -> Processor:
    last, reads = special_tokens["sep_token"], special_tokens["cls_token"]
    return processors.TemplateProcessing(
        single=f"$A:0 {last}:0 {reads}:2",
        pair=f"$A:0 {last}:0 $B:1 {last}:1 {reads}:2",
        special_tokens=[(last, token_to_id(last)), (reads, token_to_id(reads))],
    )


def _xlm_roberta(data: VocabularyData, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    return _unigram(data, 3, "always" if settings.get("add_prefix_space", True) else "never")


def _xlm_roberta_post_processor(
    special_tokens: Mapping[str, str], token_to_id: Callable[[str], int]
) -> Processor:
    first, last = special_tokens["bos_token"], special_tokens["eos_token"]
    return processors.TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, last, "$B", last],
        special_tokens=[(first, token_to_id(first)), (last, token_to_id(last))],
    )


_BPE_FILES = ("vocab.json", "merges.txt")
_END_OF_TEXT = "<|endoftext|>"
_FAIRSEQ = {
    "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>", "mask_token": "<mask>",
}  # fmt: skip
_BERT = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}  # fmt: skip
_XLNET = {**_FAIRSEQ, "sep_token": "<sep>", "cls_token": "<cls>"}
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_T5 = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_GPT2 = {"bos_token": _END_OF_TEXT, "eos_token": _END_OF_TEXT, "unk_token": _END_OF_TEXT}
_QWEN2 = {"eos_token": _END_OF_TEXT, "unk_token": _END_OF_TEXT, "pad_token": _END_OF_TEXT}

CLASSES: Mapping[str, StockClass] = {
    "BertTokenizer": StockClass("WordPiece", _bert, _BERT, ("vocab.txt",), _bert_post_processor),
    "GPT2Tokenizer": StockClass("BPE", _byte_level, _GPT2, _BPE_FILES),
    "RobertaTokenizer": StockClass("BPE", _byte_level, _FAIRSEQ, _BPE_FILES, _roberta_post_processor),
    "GPTNeoXTokenizer": StockClass(
        "BPE", _gpt_neox, {**_GPT2, "pad_token": "<|padding|>"}, _BPE_FILES, ignores_post_processor=True
    ),
    "OpenAIGPTTokenizer": StockClass("BPE", _gpt1, {"unk_token": "<unk>"}, _BPE_FILES),
    "Qwen2Tokenizer": StockClass("BPE", _qwen2, _QWEN2, _BPE_FILES, adds_special_tokens_again=True),
    "LlamaTokenizer": StockClass("BPE", _llama, _LLAMA),
    "T5Tokenizer": StockClass(
        "Unigram", _t5, _T5, post_processor=_t5_post_processor, extra_special_tokens=_t5_extra_special_tokens
    ),
    "XLNetTokenizer": StockClass(
        "Unigram",
        _xlnet,
        _XLNET,
        post_processor=_xlnet_post_processor,
        extra_special_tokens=lambda settings: ["<eop>", "<eod>"],
    ),
    "XLMRobertaTokenizer": StockClass(
        "Unigram", _xlm_roberta, _FAIRSEQ, post_processor=_xlm_roberta_post_processor
    ),
}
"""Class to what it does."""
ALIASES: Mapping[str, str] = {
    **dict.fromkeys(("ConvBertTokenizer", "DPRContextEncoderTokenizer", "DPRQuestionEncoderTokenizer",
                     "DPRReaderTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "LayoutLMTokenizer",
                     "LxmertTokenizer", "MobileBertTokenizer", "SqueezeBertTokenizer"), "BertTokenizer"),
    **dict.fromkeys(("BartTokenizer", "LEDTokenizer", "LongformerTokenizer", "MvpTokenizer"),
                    "RobertaTokenizer"),
}  # fmt: skip
"""Other names of them, without ``Fast``."""
GENERIC_CLASS = ""
"""Stands for a class that takes all of ``tokenizer.json``, such as ``PreTrainedTokenizerFast``."""
CLASS_BY_MODEL_TYPE: Mapping[str, str] = {
    **dict.fromkeys(("bert", "convbert", "distilbert", "electra", "ernie", "layoutlm", "megatron-bert",
                     "nezha", "nomic_bert", "qdqbert", "retribert", "squeezebert"), "BertTokenizer"),
    **dict.fromkeys(("codegen", "gpt2", "gpt_neo", "gptj", "jais2", "opt", "phi", "starcoder2"),
                    "GPT2Tokenizer"),
    **dict.fromkeys(("bart", "data2vec-text", "ibert", "longformer", "mega", "mra", "roberta",
                     "roberta-prelayernorm"), "RobertaTokenizer"),
    "openai-gpt": "OpenAIGPTTokenizer",
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"), "Qwen2Tokenizer"),
    **dict.fromkeys(("falcon_mamba", "gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv", "xlstm"),
                    "GPTNeoXTokenizer"),
    **dict.fromkeys(("mt5", "switch_transformers", "t5"), "T5Tokenizer"),
    "xlnet": "XLNetTokenizer",
    **dict.fromkeys(("gte", "xlm-roberta", "xmod"), "XLMRobertaTokenizer"),
    **dict.fromkeys(("arctic", "bigbird_pegasus", "ernie4_5", "ernie4_5_moe", "flex_olmo", "glm", "glm4",
                     "glm4_moe", "gpt_bigcode", "granite", "granitemoe", "granitemoehybrid",
                     "granitemoeshared", "internlm2", "internlm3", "jamba", "minicpm3", "minimax_m2",
                     "ministral", "ministral3", "mistral", "mixtral", "modernbert", "modernbert-decoder",
                     "nemotron", "nystromformer", "olmo2", "olmo3", "olmo_hybrid", "pegasus_x", "persimmon",
                     "phi3", "phimoe", "stablelm", "umt5", "xlm-roberta-xl"), GENERIC_CLASS),
}  # fmt: skip
"""``model_type`` to the class that stock transformers has for it, of the classes above."""
FIXED_MODEL_TYPES = frozenset({
    "arctic", "ernie4_5", "ernie4_5_moe", "internlm2", "internlm3", "jamba", "minicpm3",
                   "minimax_m2", "modernbert", "modernbert-decoder", "nemotron", "phi3", "phimoe",
                   "qwen2"})  # fmt: skip
"""``model_type`` of which stock transformers passes over the class that the folder names."""
CHECKED_CLASSES = frozenset({
    "AlbertTokenizer", "BlenderbotTokenizer", "CodeGenTokenizer", "DebertaTokenizer", "FunnelTokenizer",
    "HerbertTokenizer", "LayoutLMv2Tokenizer", "LayoutLMv3Tokenizer", "LukeTokenizer", "MPNetTokenizer",
    "MarkupLMTokenizer", "RoFormerTokenizer", "SplinterTokenizer", "WhisperTokenizer",
})  # fmt: skip
"""Further classes that follow the config: their ``tokenizer.json`` is read as it is where both agree."""


def resolve_class(model_type: str | None, declared: str | None, byte_level: bool) -> str:
    """The class with which ``AutoTokenizer`` reads a folder; `GENERIC_CLASS` for one that takes all of
    tokenizer.json.

    Args:
        model_type: of config.json; None: there is none.
        declared: ``tokenizer_class`` of tokenizer_config.json, or else of config.json.
        byte_level: does tokenizer.json work on bytes?
    """
    name = "" if declared is None else ALIASES.get(_strip_fast(declared), _strip_fast(declared))
    registered = CLASS_BY_MODEL_TYPE.get(model_type or "")
    if name == "LlamaTokenizer" and byte_level and model_type not in FIXED_MODEL_TYPES:
        return GENERIC_CLASS
    if registered is None:  # a model type of another class, or of none
        return name if name in CLASSES or name in CHECKED_CLASSES else GENERIC_CLASS
    if not name or model_type in FIXED_MODEL_TYPES:
        return registered
    if registered == GENERIC_CLASS:
        return GENERIC_CLASS
    return name if name in CLASSES or name in CHECKED_CLASSES else GENERIC_CLASS


def _strip_fast(name: str) -> str:
    return name.removesuffix("Fast")
