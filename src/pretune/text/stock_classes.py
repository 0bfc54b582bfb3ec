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

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 cuts a text before it looks for tokens."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a class is handed of a folder."""

    vocabulary: Vocabulary
    merges: Any = None
    characters: bytes | None = None
    """SentencePiece's table of how characters are normalised."""


@dataclass(frozen=True, slots=True)
class StockClass:
    """A tokenizer class."""

    model: str
    """``WordPiece``, ``BPE`` or ``Unigram``."""
    build: Callable[[Parts, Mapping[str, Any]], tokenizers.Tokenizer]
    """The tokenizer without added tokens and without a frame."""
    roles: Mapping[str, str | None] = field(default_factory=dict)
    """Its special tokens where the config names no others."""
    files: tuple[str, ...] = ()
    """Where its vocabulary is without a ``tokenizer.json``; none: in files that pretune does not read."""
    frame: Callable[[Mapping[str, str], Callable[[str], int]], Processor] | None = None
    """What it puts around a text, of its special tokens and their ids; None: what ``tokenizer.json`` says."""
    own_frame: bool = False
    """Does it put around a text what its ``add_bos_token`` says, whatever ``tokenizer.json`` does?"""
    plain: bool = False
    """Are its special tokens added once more, without the flags of the config (such as ``lstrip``)?"""
    extra: Callable[[Mapping[str, Any]], list[str]] = lambda settings: []
    """Further special tokens where the config names no others."""


def _bert(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    unknown = settings["unk_token"]
    backend = tokenizers.Tokenizer(
        models.WordPiece.from_file(parts.vocabulary, unk_token=unknown)
        if isinstance(parts.vocabulary, str)
        else models.WordPiece(parts.vocabulary, unk_token=unknown)
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


def _bert_frame(roles: Mapping[str, str], id: Callable[[str], int]) -> Processor:
    first, last = roles["cls_token"], roles["sep_token"]
    return processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(first, id(first)), (last, id(last))],
    )


def _bpe(parts: Parts, **settings: Any) -> tokenizers.Tokenizer:
    if isinstance(parts.vocabulary, str):
        return tokenizers.Tokenizer(models.BPE.from_file(parts.vocabulary, parts.merges, **settings))
    return tokenizers.Tokenizer(models.BPE(parts.vocabulary, parts.merges, **settings))


def _byte_level(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _bpe(parts, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    prefix = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    return backend


def _roberta_frame(roles: Mapping[str, str], id: Callable[[str], int]) -> Processor:
    first, last = roles["cls_token"], roles["sep_token"]
    return processors.RobertaProcessing((last, id(last)), (first, id(first)), add_prefix_space=False)


def _gpt_neox(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _byte_level(parts, settings)
    backend.normalizer = normalizers.NFC()
    return backend


def _qwen2(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _gpt_neox(parts, settings)
    prefix = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
    ])  # fmt: skip
    return backend


def _gpt1(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _bpe(parts, end_of_word_suffix="</w>", fuse_unk=False, unk_token=settings["unk_token"])
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def _llama(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _bpe(parts, fuse_unk=True, byte_fallback=True)
    prefix = settings.get("add_prefix_space")
    prefix = True if prefix is None else bool(prefix)
    scheme = ("always" if settings.get("legacy", False) else "first") if prefix else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + ([decoders.Strip(content=" ", left=1)] if prefix else []))
    return backend


def _unigram(parts: Parts, unknown: int, scheme: str) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram(parts.vocabulary, unk_id=unknown, byte_fallback=False))
    if parts.characters is not None:
        backend.normalizer = normalizers.Precompiled(parts.characters)
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)
    ])  # fmt: skip
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return backend


def _t5(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    return _unigram(parts, 2, "always")


def _t5_frame(roles: Mapping[str, str], id: Callable[[str], int]) -> Processor:
    return processors.TemplateProcessing(
        single=["$A", "</s>"],
        pair=["$A", "</s>", "$B", "</s>"],
        special_tokens=[("</s>", id(roles["eos_token"]))],
    )


def _t5_extra(settings: Mapping[str, Any]) -> list[str]:
    return [f"<extra_id_{number}>" for number in range(settings.get("extra_ids", 100))]


def _xlnet(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    backend = _unigram(parts, settings.get("unk_id", 0), "always")
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [normalizers.NFKD(), normalizers.StripAccents()]
    steps += [normalizers.Lowercase()] if settings.get("do_lower_case", False) else []
    steps += [] if parts.characters is None else [normalizers.Precompiled(parts.characters)]
    backend.normalizer = normalizers.Sequence(steps)
    return backend


def _xlnet_frame(roles: Mapping[str, str], id: Callable[[str], int]) -> Processor:
    last, reads = roles["sep_token"], roles["cls_token"]
    return processors.TemplateProcessing(
        single=f"$A:0 {last}:0 {reads}:2",
        pair=f"$A:0 {last}:0 $B:1 {last}:1 {reads}:2",
        special_tokens=[(last, id(last)), (reads, id(reads))],
    )


def _xlm_roberta(parts: Parts, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    return _unigram(parts, 3, "always" if settings.get("add_prefix_space", True) else "never")


def _xlm_roberta_frame(roles: Mapping[str, str], id: Callable[[str], int]) -> Processor:
    first, last = roles["bos_token"], roles["eos_token"]
    return processors.TemplateProcessing(
        single=[first, "$A", last],
        pair=[first, "$A", last, last, "$B", last],
        special_tokens=[(first, id(first)), (last, id(last))],
    )


_PAIR = ("vocab.json", "merges.txt")
_END = "<|endoftext|>"
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
_GPT2 = {"bos_token": _END, "eos_token": _END, "unk_token": _END}
_QWEN2 = {"eos_token": _END, "unk_token": _END, "pad_token": _END}

CLASSES: Mapping[str, StockClass] = {
    "BertTokenizer": StockClass("WordPiece", _bert, _BERT, ("vocab.txt",), _bert_frame),
    "GPT2Tokenizer": StockClass("BPE", _byte_level, _GPT2, _PAIR),
    "RobertaTokenizer": StockClass("BPE", _byte_level, _FAIRSEQ, _PAIR, _roberta_frame),
    "GPTNeoXTokenizer": StockClass(
        "BPE", _gpt_neox, {**_GPT2, "pad_token": "<|padding|>"}, _PAIR, own_frame=True
    ),
    "OpenAIGPTTokenizer": StockClass("BPE", _gpt1, {"unk_token": "<unk>"}, _PAIR),
    "Qwen2Tokenizer": StockClass("BPE", _qwen2, _QWEN2, _PAIR, plain=True),
    "LlamaTokenizer": StockClass("BPE", _llama, _LLAMA),
    "T5Tokenizer": StockClass("Unigram", _t5, _T5, frame=_t5_frame, extra=_t5_extra),
    "XLNetTokenizer": StockClass(
        "Unigram", _xlnet, _XLNET, frame=_xlnet_frame, extra=lambda settings: ["<eop>", "<eod>"]
    ),
    "XLMRobertaTokenizer": StockClass("Unigram", _xlm_roberta, _FAIRSEQ, frame=_xlm_roberta_frame),
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
FILE = ""
"""Stands for a class that takes all of ``tokenizer.json``, such as ``PreTrainedTokenizerFast``."""
REGISTERED: Mapping[str, str] = {
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
                     "phi3", "phimoe", "stablelm", "umt5", "xlm-roberta-xl"), FILE),
}  # fmt: skip
"""``model_type`` to the class that stock transformers has for it, of the classes above."""
FIXED = frozenset({"arctic", "ernie4_5", "ernie4_5_moe", "internlm2", "internlm3", "jamba", "minicpm3",
                   "minimax_m2", "modernbert", "modernbert-decoder", "nemotron", "phi3", "phimoe",
                   "qwen2"})  # fmt: skip
"""``model_type`` of which stock transformers passes over the class that the folder names."""
OTHERS = frozenset({
    "AlbertTokenizer", "BlenderbotTokenizer", "CodeGenTokenizer", "DebertaTokenizer", "FunnelTokenizer",
    "HerbertTokenizer", "LayoutLMv2Tokenizer", "LayoutLMv3Tokenizer", "LukeTokenizer", "MPNetTokenizer",
    "MarkupLMTokenizer", "RoFormerTokenizer", "SplinterTokenizer", "WhisperTokenizer",
})  # fmt: skip
"""Further classes that follow the config: their ``tokenizer.json`` is read as it is where both agree."""


def class_of(model_type: str | None, declared: str | None, byte_level: bool) -> str:
    """The class with which ``AutoTokenizer`` reads a folder; `FILE` for one that takes all of tokenizer.json.

    Args:
        model_type: of config.json; None: there is none.
        declared: ``tokenizer_class`` of tokenizer_config.json, or else of config.json.
        byte_level: does tokenizer.json work on bytes?
    """
    name = "" if declared is None else ALIASES.get(_slow(declared), _slow(declared))
    registered = REGISTERED.get(model_type or "")
    if name == "LlamaTokenizer" and byte_level and model_type not in FIXED:
        return FILE
    if registered is None:  # a model type of another class, or of none
        return name if name in CLASSES or name in OTHERS else FILE
    if not name or model_type in FIXED:
        return registered
    if registered == FILE:
        return FILE
    return name if name in CLASSES or name in OTHERS else FILE


def _slow(name: str) -> str:
    return name.removesuffix("Fast")
