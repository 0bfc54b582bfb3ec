"""The files of a tokenizer, read as ``AutoTokenizer`` of stock transformers reads them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from pretune.errors import CheckpointError, quote
from pretune.text.files import (
    ADDED_TOKENS,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    VOCABULARY,
    check_file_size,
    read_object,
    rust_errors,
)
from pretune.text.limits import check_tokenizer, check_vocabulary
from pretune.text.stock_classes import (
    CHECKED_CLASSES,
    CLASSES,
    GENERIC_CLASS,
    StockClass,
    VocabularyData,
    resolve_class,
)

END_OF_WORD = "</w>"
"""Of a token that ends a word in GPT's vocabulary."""
SPECIAL_TOKEN_ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""The roles, in the order in which stock transformers adds their tokens."""
EMPTY_MODEL = {"type": "BPE", "vocab": {}, "merges": []}
NORMALIZER_KEYS = {
    "do_lower_case": "lowercase", "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}  # fmt: skip
"""Keys of the config, and what a BertNormalizer of tokenizer.json calls them."""
MAX_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class TokenizerFolder:
    """The files of a tokenizer, before any library is handed them."""

    path: Path
    settings: Mapping[str, Any]
    """tokenizer_config.json, with special_tokens_map.json where stock reads it."""
    tokenizer_json: Mapping[str, Any]
    """tokenizer.json; empty where there is none."""
    model_config: Mapping[str, Any]
    """config.json of the model; empty where there is none."""

    @classmethod
    def read(cls, path: Path) -> TokenizerFolder:
        """Read the JSON files of a folder.

        Raises:
            CheckpointError: one cannot be read as a JSON object.
        """
        settings = read_object(path / TOKENIZER_CONFIG)
        if "added_tokens_decoder" not in settings:  # else stock passes the map over
            without = {key for key, value in settings.items() if value is None}  # roles that it does without
            named = read_object(path / SPECIAL_TOKENS_MAP)
            settings |= {role: token for role, token in named.items() if role not in without}
        return cls(path, settings, read_object(path / "tokenizer.json"), read_object(path / "config.json"))

    @property
    def tokenizer_class(self) -> str:
        """The stock class that reads it; `FILE_NAME` where that takes all of tokenizer.json."""
        names = (self.settings.get("tokenizer_class"), self.model_config.get("tokenizer_class"))
        declared = next((name for name in names if name is not None), None)
        if declared is not None and not (isinstance(declared, str) and declared):
            raise CheckpointError(
                f"{self.path / TOKENIZER_CONFIG}: tokenizer_class = {quote(declared)}: expected the name "
                "of a class"
            )
        model_type = self.model_config.get("model_type")
        parts = [self.tokenizer_json.get("pre_tokenizer"), self.tokenizer_json.get("decoder")]
        name = resolve_class(
            model_type if isinstance(model_type, str) else None,
            declared,
            byte_level=any(node.get("type") == "ByteLevel" for node in iter_nodes(parts)),
        )
        if self.tokenizer_json or CLASSES.get(name, CLASSES["LlamaTokenizer"]).files:
            return name
        return self._detect_class()

    def _detect_class(self) -> str:
        """The class whose files are there, where no config says which it is."""
        if (self.path / VOCABULARY).is_file():
            return "BertTokenizer"
        words = self.path / "vocab.json"
        if not (words.is_file() and (self.path / "merges.txt").is_file()):
            return GENERIC_CLASS
        vocabulary = read_object(words)
        if any(token.endswith(END_OF_WORD) for token in vocabulary):
            return "OpenAIGPTTokenizer"
        return "RobertaTokenizer" if {"<s>", "</s>"} <= vocabulary.keys() else "GPT2Tokenizer"


def iter_nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """The parts of a description of a tokenizer, and the parts of these."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            yield item
            left += item.values()
        elif isinstance(item, list):
            left += item


def load_backend(folder: TokenizerFolder, num_embeddings: int | None = None) -> tokenizers.Tokenizer | None:
    """The tokenizer of a folder, and None where there is none.

    Args:
        num_embeddings: rows of the model's embedding. Stock adds the special tokens of a class to a
            vocabulary that
            lacks them, even where the model has no row for them: those are left out.

    Raises:
        CheckpointError: a file cannot be used; names it, and the key where it is one.
    """
    whole = folder.path / "tokenizer.json"
    _check_sizes(folder, whole)
    name = folder.tokenizer_class
    stock = CLASSES.get(name)
    with rust_errors(str(whole if folder.tokenizer_json else folder.path)):
        if stock is not None:
            backend = _build_backend(folder, name, stock)
        elif folder.tokenizer_json:
            if name in CHECKED_CLASSES:
                _check_agreement(folder, name)
            backend = tokenizers.Tokenizer.from_file(str(whole))
        else:
            return None
        if backend is None:
            return None
        _add_tokens(backend, folder, stock, num_embeddings)
        if stock is not None:
            _set_post_processor(backend, folder, name, stock)
    return backend


def _check_sizes(folder: TokenizerFolder, tokenizer_file: Path) -> None:
    """Judge the files by their text: a library that cannot allocate what they ask for ends the process."""
    if folder.tokenizer_json:
        check_tokenizer(folder.tokenizer_json, tokenizer_file)
    else:
        for name in (VOCABULARY, "merges.txt"):
            check_file_size(folder.path / name)
    for name in ("vocab.json", ADDED_TOKENS):
        if (folder.path / name).is_file():
            check_vocabulary(read_object(folder.path / name), folder.path / name)


def special_tokens(folder: TokenizerFolder) -> dict[str, str]:
    """Role to special token, as stock knows them: of the class, where the config names no other."""
    stock = CLASSES.get(folder.tokenizer_class)
    told = {**({} if stock is None else stock.special_tokens), **folder.settings}
    return {role: _token_text(told[role]) for role in SPECIAL_TOKEN_ROLES if told.get(role)}


def _build_backend(folder: TokenizerFolder, name: str, stock: StockClass) -> tokenizers.Tokenizer | None:
    values = {
        **stock.special_tokens,
        **{key: value for key, value in folder.settings.items() if value is not None},
    }
    values |= {role: _token_text(values[role]) for role in SPECIAL_TOKEN_ROLES if role in values}
    if not folder.tokenizer_json:
        paths = [folder.path / file for file in stock.files]
        if not paths or not all(path.is_file() for path in paths):
            return None
        return stock.build(VocabularyData(str(paths[0]), str(paths[-1])), values)
    model = folder.tokenizer_json.get("model")
    model = model if isinstance(model, dict) else {}
    vocabulary, merges = model.get("vocab"), model.get("merges")
    expected = list if stock.model == "Unigram" else dict
    if not isinstance(vocabulary, expected) or (stock.model == "BPE" and not isinstance(merges, list)):
        raise CheckpointError(
            f"{folder.path / TOKENIZER_CONFIG}: tokenizer_class is {name}, which needs a {stock.model} "
            "vocabulary, and "
            f"tokenizer.json holds {_truncate(model.get('type'))}; correct tokenizer_class "
            "(PreTrainedTokenizerFast takes the file as it is)"
        )
    if isinstance(vocabulary, list):
        vocabulary = [tuple(piece) for piece in vocabulary]
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in merges or []]
    backend = stock.build(
        VocabularyData(vocabulary, pairs, _precompiled_charsmap(folder.tokenizer_json)), values
    )
    outline = _without_vocabulary(folder.tokenizer_json)
    backend.post_processor = outline.post_processor
    if outline.truncation is not None:
        backend.enable_truncation(**outline.truncation)
    if outline.padding is not None:
        backend.enable_padding(**outline.padding)
    return backend


def _precompiled_charsmap(content: Mapping[str, Any]) -> bytes | None:
    """SentencePiece's table in a tokenizer.json, where the normaliser has one."""
    for node in iter_nodes(content.get("normalizer")):
        if node.get("type") == "Precompiled":
            try:
                return base64.b64decode(node["precompiled_charsmap"], validate=True)
            except (KeyError, TypeError, binascii.Error) as error:
                raise CheckpointError(f"tokenizer.json: precompiled_charsmap: {error}") from None
    return None


def _without_vocabulary(content: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The post-processor, truncation and padding of a tokenizer.json, with no vocabulary."""
    kept = {key: content.get(key) for key in ("version", "truncation", "padding", "post_processor")}
    empty: dict[str, Any] = {
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "decoder": None,
        "model": EMPTY_MODEL,
    }
    return tokenizers.Tokenizer.from_str(json.dumps({**kept, **empty}))


def _add_tokens(
    backend: tokenizers.Tokenizer,
    folder: TokenizerFolder,
    stock: StockClass | None,
    num_embeddings: int | None,
) -> None:
    """Add what the files list, and then the special tokens that the vocabulary lacks, as stock does."""
    listed = _added_tokens(folder)
    named = _role_tokens(folder, stock)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    known |= {token.content for token in listed.values()}
    texts = {_token_text(token) for token in named}
    tokens = [_as_special(token) if token.content in texts else token for _, token in sorted(listed.items())]
    size = len({*backend.get_vocab(with_added_tokens=True), *(token.content for token in tokens)})
    for token in (*named, *_extra_special_tokens(folder, stock)):
        if _token_text(token) in known:
            continue
        known.add(_token_text(token))
        if backend.token_to_id(_token_text(token)) is None:
            size += 1
            if num_embeddings is not None and size > num_embeddings:
                continue
        tokens.append(_to_added_token(token))
    if tokens:
        backend.add_tokens(tokens)
    if stock is not None and stock.adds_special_tokens_again:
        backend.add_tokens([
            AddedToken(_token_text(token), special=True)
            for token in (*named, *_extra_special_tokens(folder, stock))
            if backend.token_to_id(_token_text(token)) is not None
        ])  # fmt: skip


def _added_tokens(folder: TokenizerFolder) -> dict[int, AddedToken]:
    """Id to token, of the files that list added tokens."""
    if "added_tokens_decoder" in folder.settings:
        return _parse_added_tokens(folder.path / TOKENIZER_CONFIG, folder.settings["added_tokens_decoder"])
    special = {
        _token_text(folder.settings[role]) for role in SPECIAL_TOKEN_ROLES if folder.settings.get(role)
    }
    special |= {_token_text(token) for token in _extra_special_tokens(folder, None)}
    found: dict[int, AddedToken] = {}
    for content, id in read_object(folder.path / ADDED_TOKENS).items():
        if not isinstance(id, int):
            raise CheckpointError(
                f"{folder.path / ADDED_TOKENS}: {_truncate(content)}: {_truncate(id)} is no id"
            )
        found[id] = AddedToken(content, normalized=content not in special, special=content in special)
    for item in folder.tokenizer_json.get("added_tokens") or []:
        found |= _parse_added_tokens(folder.path / "tokenizer.json", {item.get("id"): item})
    return found


def _parse_added_tokens(path: Path, tokens: Any) -> dict[int, AddedToken]:
    try:
        return {
            int(id): AddedToken(**{key: value for key, value in token.items() if key not in ("id", "__type")})
            for id, token in tokens.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: added tokens {_truncate(tokens)}: {error}") from None


def _role_tokens(folder: TokenizerFolder, stock: StockClass | None) -> list[Any]:
    """The tokens of the roles, and those of roles that only this tokenizer has."""
    settings = folder.settings
    told = {**({} if stock is None else stock.special_tokens), **settings}
    found = [told[role] for role in SPECIAL_TOKEN_ROLES if told.get(role)]
    own = [key for key in settings if key.endswith("_token") and key not in SPECIAL_TOKEN_ROLES]
    found += [settings[key] for key in own if isinstance(settings[key], str)]
    more = settings.get("extra_special_tokens")
    return found + (list(more.values()) if isinstance(more, dict) else [])


def _extra_special_tokens(folder: TokenizerFolder, stock: StockClass | None) -> list[Any]:
    """The special tokens without a role."""
    settings = folder.settings
    more = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    if "extra_special_tokens" in settings or "additional_special_tokens" in settings or stock is None:
        return list(more) if isinstance(more, list) else []
    return list(stock.extra_special_tokens(settings))


def _token_text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token)


def _to_added_token(token: Any) -> AddedToken:
    if not isinstance(token, dict):
        return AddedToken(_token_text(token), special=True)
    flags = {
        key: bool(token[key]) for key in ("single_word", "lstrip", "rstrip", "normalized") if key in token
    }
    return AddedToken(_token_text(token), special=True, **flags)


def _as_special(token: AddedToken) -> AddedToken:
    if token.special:
        return token
    return AddedToken(
        token.content, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
        normalized=token.normalized, special=True,
    )  # fmt: skip


def _set_post_processor(
    backend: tokenizers.Tokenizer, folder: TokenizerFolder, name: str, stock: StockClass
) -> None:
    """What the class puts around a text: its own frame, that of tokenizer.json, or start and end as asked."""
    texts = special_tokens(folder)
    if stock.post_processor is not None:
        found = {token: backend.token_to_id(token) for token in texts.values()}
        ids = {token: id for token, id in found.items() if id is not None}
        lost = [role for role in stock.special_tokens if texts.get(role) not in ids]
        needed = [role for role in lost if role in ("cls_token", "sep_token", "bos_token", "eos_token")]
        if needed:
            raise CheckpointError(
                f"{folder.path}: {name} puts a {needed[0]} around a text, and the vocabulary has none; "
                f"name it in {TOKENIZER_CONFIG}"
            )
        backend.post_processor = stock.post_processor(texts, ids.__getitem__)
    elif stock.ignores_post_processor or not folder.tokenizer_json:
        backend.post_processor = _bos_eos_post_processor(backend, folder, texts)


def _bos_eos_post_processor(
    backend: tokenizers.Tokenizer, folder: TokenizerFolder, texts: Mapping[str, str]
) -> processors.TemplateProcessing:
    wanted = {"bos_token": "add_bos_token", "eos_token": "add_eos_token"}
    # Beside a tokenizer.json stock passes these two keys over.
    asked = {} if folder.tokenizer_json else folder.settings
    used = {role: texts[role] for role, key in wanted.items() if asked.get(key) and role in texts}
    begin, end = (f"{used[role]}" if role in used else "" for role in wanted)
    single = " ".join(part for part in (begin and f"{begin}:0", "$A:0", end and f"{end}:0") if part)
    pair = " ".join(part for part in (single, begin and f"{begin}:1", "$B:1", end and f"{end}:1") if part)
    special = [(token, backend.token_to_id(token)) for token in dict.fromkeys(used.values())]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


def _check_agreement(folder: TokenizerFolder, name: str) -> None:
    """See that the config says what tokenizer.json does, of a class that follows the config.

    Raises:
        CheckpointError: it does not; names the key.
    """
    for node in iter_nodes(folder.tokenizer_json.get("normalizer")):
        if node.get("type") == "BertNormalizer":
            for key, ours in NORMALIZER_KEYS.items():
                _check_setting(folder, name, key, node.get(ours))
    for node in iter_nodes(folder.tokenizer_json.get("pre_tokenizer")):
        if node.get("type") == "ByteLevel":
            _check_setting(folder, name, "add_prefix_space", node.get("add_prefix_space"))


def _check_setting(folder: TokenizerFolder, name: str, key: str, value: Any) -> None:
    if key in folder.settings and folder.settings[key] != value:
        raise CheckpointError(
            f"{folder.path / TOKENIZER_CONFIG}: {key} = {_truncate(folder.settings[key])}, but "
            f"tokenizer.json says {value}: "
            f"stock transformers rebuilds a {name} by the config, and pretune does not; let both say the same"
        )


def _truncate(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."
