"""A tokenizer: text to ids and back, with the frame of special tokens that a model was trained with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import pre_tokenizers, processors

from pretune.config import digest
from pretune.errors import CheckpointError, ConfigError
from pretune.text import sentinels, stock_files
from pretune.text.files import (
    CHAT_TEMPLATE,
    SPECIAL_TOKEN_NAMES,
    SPECIAL_TOKENS_MAP,
    TOKENIZER_CONFIG,
    VOCABULARY,
    read_object,
    rust_errors,
    write_object,
    write_vocabulary,
)
from pretune.text.frames import SpecialTokensTemplate
from pretune.text.limits import check_tokenizer
from pretune.text.offsets import byte_offsets, is_byte_preserving
from pretune.types import IntArray, SpecialTokens, Traits

_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
MAX_SPECIAL_TOKENS = 64
"""Tokens that the tokenizer may put around a word; published ones put four at most."""
_BYTE_FALLBACK = re.compile(r"<0x[0-9A-Fa-f]{2}>")

SENTENCEPIECE_FILES = ("*.model", "*.spm")

TemplateName = Literal["cls_sep", "sep_cls", "start", "end"]


def template_for(traits: Traits) -> TemplateName:
    """The frame in which a family reads a text, its sentence head in the right place."""
    if traits.architecture == "encoder":
        return "cls_sep" if traits.pooling == "first" else "sep_cls"
    return "start" if traits.architecture == "decoder" else "end"


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text as ids, without special tokens."""

    ids: IntArray
    """(T,)"""
    offsets: IntArray
    """(T, 2) characters [start, end) of each token; tokens that share a character share its offsets."""


def replace_surrogates(text: str) -> str:
    """``text`` with each lone surrogate, which UTF-8 cannot hold, replaced by U+FFFD; offsets stay."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


class Tokenizer:
    """A `tokenizers` tokenizer with its special tokens found and its frame known.

    Args:
        backend: is copied; its truncation and padding survive ``save`` but never touch an encoding.
        settings: what ``tokenizer_config.json`` holds; unknown keys are kept for ``save``.
    """

    def __init__(self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any] | None = None) -> None:
        self.settings = dict(settings or {})
        self._truncation, self._padding = backend.truncation, backend.padding
        self._backend = _copy(backend)
        # Text is data: "<|endoftext|>" typed in a document must not become the token.
        self._backend.encode_special_tokens = True
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        # Ids may have gaps, and a table that is indexed by id must reach the last.
        self.vocabulary_size = max(self._backend.get_vocab_size(), 1 + max(vocabulary.values(), default=-1))
        self._roles = {role: self._find_special_token(role) for role in SPECIAL_TOKEN_NAMES}
        self._single_template, self._pair_template = self._probe_template(False), self._probe_template(True)
        self.specials = self._build_specials()
        self.special_tokens = {role: name for role, name in self._roles.items() if name}
        """Role to special token, as a chat template may name them."""

    @classmethod
    def load(cls, path: str | Path, num_embeddings: int | None = None) -> Tokenizer:
        """The tokenizer in a folder (or a ``tokenizer.json``), as stock ``AutoTokenizer`` reads it.

        A folder holds ``tokenizer.json``, or ``vocab.txt`` (WordPiece), or ``vocab.json`` and ``merges.txt``
        (BPE), and may hold ``tokenizer_config.json``, ``special_tokens_map.json``, ``added_tokens.json`` and
        the ``config.json`` of its model: see `stock_files`.

        Args:
            num_embeddings: rows of the embedding of its model, where that is known.

        Raises:
            CheckpointError: nothing of that kind is there, or a file cannot be read; names the file.
        """
        path = Path(path)
        if not path.is_dir():
            return cls._from_file(path)
        folder = stock_files.TokenizerFolder.read(path)
        settings = {**read_object(path / SPECIAL_TOKENS_MAP), **folder.settings}
        template = path / CHAT_TEMPLATE
        if template.is_file():
            try:
                settings["chat_template"] = template.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(f"{template}: cannot be read as UTF-8: {error}") from None
        backend = stock_files.load_backend(folder, num_embeddings)
        if backend is None:
            there = sorted(file.name for name in SENTENCEPIECE_FILES for file in path.glob(name))[:1]
            found = [
                f"; {name} alone is not read, save it as tokenizer.json with transformers" for name in there
            ]
            raise CheckpointError(
                f"{path}: no tokenizer: looked for tokenizer.json, vocab.txt, or vocab.json with merges.txt"
                + "".join(found)
            )
        with rust_errors(str(path)):
            tokenizer = cls(backend, settings)
        tokenizer.special_tokens = stock_files.special_tokens(folder)
        return tokenizer

    @classmethod
    def _from_file(cls, path: Path) -> Tokenizer:
        """One ``tokenizer.json``, with the config that lies beside it, read as the file is."""
        if not path.is_file():
            raise CheckpointError(f"{path}: no tokenizer: looked for the file")
        settings = {
            **read_object(path.parent / SPECIAL_TOKENS_MAP),
            **read_object(path.parent / TOKENIZER_CONFIG),
        }
        check_tokenizer(read_object(path), path)
        with rust_errors(str(path)):
            return cls(tokenizers.Tokenizer.from_file(str(path)), settings)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides how text becomes ids."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What ``tokenizer.json`` holds, without truncation and padding."""
        description: dict[str, Any] = json.loads(self._backend.to_str())
        return description

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of the tokenizer's config; the one named ``default`` where there are several."""
        template = self.settings.get("chat_template")
        if isinstance(template, list):
            named = [item for item in template if isinstance(item, dict)]
            template = {item.get("name"): item.get("template") for item in named}.get("default")
        return template if isinstance(template, str) else None

    def encode(self, text: str, *, parse_specials: bool = False) -> Encoding:
        """The ids of ``text`` without the frame.

        Args:
            parse_specials: read the names of special tokens in the text as these tokens, as a prompt with
                ``[MASK]`` or a rendered chat template wants it; raw text must not.
        """
        return self.encode_batch([text], parse_specials=parse_specials)[0]

    def encode_batch(self, texts: Sequence[str], *, parse_specials: bool = False) -> list[Encoding]:
        """``encode`` of each text, on as many threads as `tokenizers` takes."""
        texts = [replace_surrogates(text) for text in texts]
        backend = self._special_token_backend if parse_specials else self._backend
        sizes = None if parse_specials else self._token_byte_lengths
        with rust_errors("this tokenizer"):
            if sizes is None:
                return [_to_encoding(item) for item in backend.encode_batch(texts, add_special_tokens=False)]
            found = [
                np.array(item.ids, np.int64)
                for item in backend.encode_batch_fast(texts, add_special_tokens=False)
            ]
            spans = [byte_offsets(text, sizes[ids]) for text, ids in zip(texts, found, strict=True)]
            return [
                _to_encoding(backend.encode(text, add_special_tokens=False))
                if span is None
                else Encoding(ids, span)
                for text, ids, span in zip(texts, found, spans, strict=True)
            ]

    def decode(self, ids: Sequence[int] | IntArray, skip_special_tokens: bool = True) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD."""
        with rust_errors("this tokenizer"):
            return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def id_to_token(self, id: int) -> str:
        """The token as the vocabulary writes it; empty for an id that no token has."""
        return self._backend.id_to_token(int(id)) or ""

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it."""
        return self._backend.token_to_id(token)

    @cached_property
    def has_spaces_in_tokens(self) -> bool:
        """Do tokens hold the spaces of the text? Those of WordPiece do not."""
        return bool(json.loads(self._backend.to_str())["model"].get("type") != "WordPiece")

    def byte_lengths(self) -> IntArray:
        """(V,) bytes of text that each id stands for, 0 for specials: the unit of bits per byte.

        Exact for byte-level and byte-fallback vocabularies: over the ids of a text it sums up to the text's
        UTF-8 length. A WordPiece token counts without its ``##``, and the spaces that WordPiece drops count
        nowhere.
        """
        description = self.to_dict()
        byte_level = '"ByteLevel"' in json.dumps([description["pre_tokenizer"], description["decoder"]])
        prefix = description["model"].get("continuing_subword_prefix") or ""
        lengths = np.zeros(self.vocabulary_size, np.int64)
        for token, id in self._backend.get_vocab(with_added_tokens=False).items():
            if byte_level and _BYTE_ALPHABET.issuperset(token):
                lengths[id] = len(token)
            elif _BYTE_FALLBACK.fullmatch(token):
                lengths[id] = 1
            else:
                lengths[id] = len(token.removeprefix(prefix).replace("▁", " ").encode())
        for id, added in self._backend.get_added_tokens_decoder().items():
            lengths[id] = len(added.content.encode())
        lengths[list(self.specials.all_ids)] = 0
        return lengths

    def add_special_tokens(self, a: IntArray, b: IntArray | None = None) -> tuple[IntArray, IntArray]:
        """(T,) tokens and (T,) segments of a text or a pair, with the special tokens around."""
        frame = self._single_template if b is None else self._pair_template
        parts = [np.asarray(a, np.int64)] if b is None else [np.asarray(a, np.int64), np.asarray(b, np.int64)]
        tokens, segments = [frame.special_tokens[0][0]], [frame.special_tokens[0][1]]
        for part, segment, (after, after_segments) in zip(
            parts, frame.segments, frame.special_tokens[1:], strict=True
        ):
            tokens += [part, after]
            segments += [np.full(len(part), segment, np.int64), after_segments]
        return np.concatenate(tokens), np.concatenate(segments)

    def with_template(self, template: TemplateName, *, segments: bool = False) -> Tokenizer:
        """A copy that frames differently, and whose saved form makes `transformers` frame so as well.

        ``cls_sep`` gives ``[CLS] a [SEP]`` and ``[CLS] a [SEP] b [SEP]``, for encoders; ``sep_cls`` gives
        ``a [SEP] [CLS]`` and ``a [SEP] b [SEP] [CLS]``, and lets stock `transformers` pad to the left, for
        XLNet, which reads the last place; ``start`` gives the start (or end-of-text) token and then the text,
        for decoders; ``end`` gives the text and then the end-of-text token, for encoder-decoders.

        Args:
            segments: the second text of a pair is segment 1, and stock `transformers` hands the model
                ``token_type_ids``: for BERT, while a model without segments would refuse them.

        Raises:
            ConfigError: the vocabulary has no token for it.
        """
        backend = _copy(self._backend)
        roles = dict(self._roles)
        needed = ("cls_token", "sep_token")
        if template == "start":
            roles["bos_token"] = roles["bos_token"] or roles["eos_token"]
            needed = ("bos_token", "eos_token")
        elif template == "end":
            needed = ("eos_token", "eos_token")
        names = [roles[role] for role in needed]
        if None in names:
            raise ConfigError(f"frame {template!r}: the tokenizer has no {needed[names.index(None)]}")
        first, last = names
        special = [(name, backend.token_to_id(name)) for name in dict.fromkeys(n for n in names if n)]
        second = int(segments)
        single, pair = {
            "cls_sep": (f"{first} $A {last}", f"{first} $A {last} $B:{second} {last}:{second}"),
            "sep_cls": (
                f"$A {last} {first}",
                f"$A {last} $B:{second} {last}:{second} {first}:{second}",
            ),
            "start": (f"{first} $A", f"{first} $A {last} $B:{second}"),
            "end": (f"$A {last}", f"$A {last} $B:{second} {last}:{second}"),
        }[template]
        backend.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=special
        )
        inputs = (
            ["input_ids", "token_type_ids", "attention_mask"] if segments else ["input_ids", "attention_mask"]
        )
        named = {role: name for role, name in roles.items() if name}
        # Else stock takes the frame of the class that this tokenizer once had.
        settings = {**named, "model_input_names": inputs, "tokenizer_class": "PreTrainedTokenizerFast"}
        settings |= {"padding_side": "left"} if template == "sep_cls" else {}
        return self.with_backend(backend, settings)

    def with_backend(
        self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any] | None = None
    ) -> Tokenizer:
        """A copy that tokenizes with another backend, and with ``settings`` over its own."""
        copy = Tokenizer(backend, {**self.settings, **(settings or {})})
        copy._truncation, copy._padding = self._truncation, self._padding
        copy.special_tokens = {**self.special_tokens, **copy.special_tokens}
        return copy

    def with_sentinels(self, count: int) -> Tokenizer:
        """A copy with ``count`` sentinels for hidden spans, unless it has as many; text is read as before.

        As in T5, ``<extra_id_0>`` is the last token of the vocabulary, ``<extra_id_1>`` the last but one ...
        """
        if count <= len(self.specials.sentinel_ids):
            return self
        backend = _copy(self._backend)
        sentinels.add_sentinels(backend, count)
        return self.with_backend(backend)

    def save(self, folder: str | Path, model_max_length: int | None = None) -> None:
        """Write the files from which ``transformers.AutoTokenizer`` gives the same ids and special tokens."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        backend = _copy(self._backend)
        if self._truncation:
            backend.enable_truncation(**self._truncation)
        if self._padding:
            backend.enable_padding(**self._padding)
        roles = {role: name for role, name in self._roles.items() if name}
        if "pad_token" not in roles and self.specials.eos_id is not None:
            roles["pad_token"] = self.id_to_token(
                self.specials.pad_id
            )  # a batch of stock transformers needs one
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self.settings, **roles}
        settings.pop("added_tokens_decoder", None)  # it would hide those of tokenizer.json, which are all
        if model_max_length is not None:
            settings["model_max_length"] = model_max_length
        (folder / "tokenizer.json").write_text(backend.to_str(pretty=True) + "\n", encoding="utf-8")
        write_object(folder / TOKENIZER_CONFIG, settings)
        if isinstance(backend.model, tokenizers.models.WordPiece):  # which older programs read
            write_vocabulary(folder / VOCABULARY, self._backend)
        write_object(folder / SPECIAL_TOKENS_MAP, roles)

    @cached_property
    def _token_byte_lengths(self) -> IntArray | None:
        return self.byte_lengths() if is_byte_preserving(self.to_dict()) else None

    @cached_property
    def _special_token_backend(self) -> tokenizers.Tokenizer:
        copy = _copy(self._backend)
        copy.encode_special_tokens = bool(self.settings.get("split_special_tokens"))
        return copy

    def _find_special_token(self, role: str) -> str | None:
        # A role that the config sets to null is one that this tokenizer does without.
        candidates: Sequence[Any] = (
            (self.settings[role],) if role in self.settings else SPECIAL_TOKEN_NAMES[role]
        )
        for name in candidates:
            text = name.get("content") if isinstance(name, Mapping) else name
            if isinstance(text, str) and self._backend.token_to_id(text) is not None:
                return text
        return None

    def _probe_template(self, pair: bool) -> SpecialTokensTemplate:
        """Where the post-processor puts what, seen on an encoding: so any post-processor is honoured."""
        for probe in ("a", "1", "的", ".", "the"):
            found = self._backend.encode(probe, probe if pair else None)
            if found.ids and len({s for s in found.sequence_ids if s is not None}) == 1 + pair:
                if max(found.ids) >= self.vocabulary_size or len(found.ids) > MAX_SPECIAL_TOKENS:
                    raise CheckpointError(
                        f"tokenizer.json: post_processor: puts {len(found.ids)} tokens around {probe!r}, the "
                        f"largest id {max(found.ids)}; the vocabulary has {self.vocabulary_size} ids"
                    )
                return SpecialTokensTemplate.from_encoding(
                    found.ids, found.type_ids, found.sequence_ids, 1 + pair
                )
        nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        return SpecialTokensTemplate((nothing,) * (2 + pair), (0,) * (1 + pair))

    def _build_specials(self) -> SpecialTokens:
        found = {role: self.token_to_id(name) for role, name in self._roles.items() if name}
        ids = {role: id for role, id in found.items() if id is not None}
        added = self._backend.get_added_tokens_decoder()
        pad, end = ids.get("pad_token"), ids.get("eos_token")
        before, after = self._single_template.ids
        ends = self._single_template.special_tokens[-1][1].tolist()  # (after) segments
        return SpecialTokens(
            vocabulary_size=self.vocabulary_size,
            pad_id=next((i for i in (pad, end) if i is not None), 0),
            eos_id=end,
            bos_id=ids.get("bos_token"),
            unk_id=ids.get("unk_token"),
            mask_id=ids.get("mask_token"),
            all_ids=tuple(sorted({i for i, token in added.items() if token.special} | set(ids.values()))),
            single=(before, after),
            pair=(self._pair_template.ids[0], self._pair_template.ids[1], self._pair_template.ids[2]),
            sentinel_ids=sentinels.find_sentinels(self._backend),
            last_segment_id=ends[-1] if any(ends[-1:]) else None,
        )


def _to_encoding(encoding: tokenizers.Encoding) -> Encoding:
    offsets = np.fromiter(chain.from_iterable(encoding.offsets), np.int64).reshape(-1, 2)
    return Encoding(np.array(encoding.ids, np.int64), offsets)


def _copy(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = backend.encode_special_tokens
    return copy
