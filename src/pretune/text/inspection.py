"""What a tokenizer does to a text: fertility, coverage, what comes back, what of it is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pretune.text.segmentation import (
    SENTENCE_START,
    WORD_START,
    count_words,
    find_word_starts,
    is_mostly_chinese,
)
from pretune.text.tokenizer import Encoding, Tokenizer, replace_surrogates
from pretune.types import BoolArray, IntArray

LANGUAGES = ("zh", "other")
"""Texts of mostly Chinese characters, and all others."""
_BATCH = 256
_DIFFERENCES = 5
_MAX_LISTED = 10
_CONTEXT_CHARACTERS = 12  # characters shown on either side of a difference


@dataclass
class _TextCounts:
    """Sums over the texts of one language."""

    texts: int = 0
    characters: int = 0
    bytes: int = 0
    words: int = 0
    tokens: int = 0
    unk_tokens: int = 0
    one_character: int = 0
    round_trips: int = 0
    differences: list[dict[str, str]] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Fertility:
    """What a tokenizer does to the texts of one language."""

    language: str
    texts: int
    characters: int
    bytes: int
    tokens: int
    tokens_per_word: float
    tokens_per_character: float
    bytes_per_token: float
    unk_fraction: float
    """Share of the tokens that are the unknown token."""
    uncovered_fraction: float
    """Share of the characters that no token spells: they become unknown, or bytes."""
    uncovered_examples: tuple[str, ...]
    round_trip_fraction: float
    """Share of the texts that come back exactly."""
    differences: tuple[dict[str, str], ...]
    """The first texts that do not: ``text`` and what came ``decoded``, around the first difference."""
    single_character_fraction: float
    """Share of the tokens that show one character, or a part of one."""
    used_tokens: int
    """How many different tokens occur, without special ones."""
    longest_tokens: tuple[str, ...]
    """The longest tokens that occur."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a tokenizer does to a text."""

    vocabulary_size: int
    unused_tokens: int
    """Tokens, without special ones, that occur nowhere in the text."""
    unused_examples: tuple[str, ...]
    languages: tuple[Fertility, ...]


def inspect_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> Inspection:
    """Measure ``tokenizer`` on ``texts``, which are read once; memory does not grow with them."""
    tallies = {language: _TextCounts() for language in LANGUAGES}
    used = {language: np.zeros(tokenizer.vocabulary_size, np.int64) for language in LANGUAGES}
    known = _CharacterCoverage(tokenizer)
    for batch in _iter_batches(texts):
        for text, encoded in zip(batch, tokenizer.encode_batch(batch), strict=True):
            language = LANGUAGES[0] if is_mostly_chinese(text) else LANGUAGES[1]
            used[language] += np.bincount(encoded.ids, minlength=tokenizer.vocabulary_size)
            _count_text(tallies[language], tokenizer, known, text, encoded)
    seen: BoolArray = np.logical_or.reduce([counts > 0 for counts in used.values()])
    seen[list(tokenizer.specials.all_ids)] = True
    found = tuple(_fertility(tokenizer, name, tallies[name], used[name]) for name in LANGUAGES)
    unused = [id for id in np.flatnonzero(~seen).tolist() if tokenizer.id_to_token(id)]
    examples = tuple(tokenizer.decode([id]) for id in unused[-_MAX_LISTED:])  # what was learnt last
    languages = tuple(item for item in found if item.texts)
    return Inspection(tokenizer.vocabulary_size, len(unused), examples, languages)


class _CharacterCoverage:
    """Which characters have a token that spells them whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, bool] = {}

    def __call__(self, character: str) -> bool:
        if character not in self._cache:
            ids = self._tokenizer.encode(character).ids
            # Two tokens: a space, or SentencePiece's mark of a word, and then the character.
            whole = len(ids) <= 1 or (len(ids) == 2 and "\ufffd" not in self._tokenizer.decode(ids[1:]))
            unknown = self._tokenizer.specials.unk_id
            self._cache[character] = character.isspace() or (whole and unknown not in ids.tolist())
        return self._cache[character]


def _count_text(
    counts: _TextCounts, tokenizer: Tokenizer, coverage: _CharacterCoverage, text: str, encoded: Encoding
) -> None:
    counts.texts += 1
    counts.characters += len(text)
    counts.bytes += len(text.encode())
    counts.words += count_words(text)
    counts.tokens += len(encoded.ids)
    if tokenizer.specials.unk_id is not None:
        counts.unk_tokens += int((encoded.ids == tokenizer.specials.unk_id).sum())
    counts.one_character += int((_count_visible(text, encoded.offsets) <= 1).sum())
    back = tokenizer.decode(encoded.ids, skip_special_tokens=False)
    counts.round_trips += back == text
    if back != text and len(counts.differences) < _DIFFERENCES:
        counts.differences.append(_first_difference(text, back))
    for character, count in Counter(text).items():
        if not coverage(character):
            counts.missing[character] += count


def _count_visible(text: str, offsets: IntArray) -> IntArray:
    """(T,) characters of each token that are no space."""
    shown = np.concatenate([[0], np.cumsum(np.array([not c.isspace() for c in text], np.int64))])
    counts: IntArray = shown[offsets[:, 1]] - shown[offsets[:, 0]]
    return counts


def _first_difference(text: str, back: str) -> dict[str, str]:
    at = next(
        (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back))
    )
    low, high = max(at - _CONTEXT_CHARACTERS, 0), at + _CONTEXT_CHARACTERS
    return {"text": text[low:high], "decoded": back[low:high]}


def _fertility(tokenizer: Tokenizer, language: str, counts: _TextCounts, used: IntArray) -> Fertility:
    used[list(tokenizer.specials.all_ids)] = 0
    occurring = np.flatnonzero(used)
    lengths = tokenizer.byte_lengths()[occurring]
    longest = occurring[np.lexsort((occurring, -lengths))][:_MAX_LISTED]
    return Fertility(
        language=language,
        texts=counts.texts,
        characters=counts.characters,
        bytes=counts.bytes,
        tokens=counts.tokens,
        tokens_per_word=_ratio(counts.tokens, counts.words),
        tokens_per_character=_ratio(counts.tokens, counts.characters),
        bytes_per_token=_ratio(counts.bytes, counts.tokens),
        unk_fraction=_ratio(counts.unk_tokens, counts.tokens),
        uncovered_fraction=_ratio(counts.missing.total(), counts.characters),
        uncovered_examples=tuple(
            c for c, _ in sorted(counts.missing.items(), key=lambda item: (-item[1], item[0]))[:_MAX_LISTED]
        ),
        round_trip_fraction=_ratio(counts.round_trips, counts.texts),
        differences=tuple(counts.differences),
        single_character_fraction=_ratio(counts.one_character, counts.tokens),
        used_tokens=len(occurring),
        longest_tokens=tuple(tokenizer.decode([id]) for id in longest.tolist()),
    )


def _ratio(numerator: int, denominator: int) -> float:
    return round(numerator / denominator, 4) if denominator else 0.0


def _iter_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(replace_surrogates(text))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def describe_tokens(tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    """The tokens of ``text``: id, token as the vocabulary writes it, its characters, what starts at it."""
    text = replace_surrogates(text)
    encoded = tokenizer.encode(text)
    flags = find_word_starts(text, encoded.offsets)
    return [
        {
            "id": id,
            "token": tokenizer.id_to_token(id),
            "text": text[low:high],
            "word_start": bool(flag & WORD_START),
            "sentence_start": bool(flag & SENTENCE_START),
        }
        for id, (low, high), flag in zip(
            encoded.ids.tolist(), encoded.offsets.tolist(), flags.tolist(), strict=True
        )
    ]


def format_table(inspections: Sequence[tuple[str, Inspection]]) -> list[str]:
    """Lines for a terminal: one a tokenizer and language, side by side."""
    head = ("tokenizer", "vocabulary", "unused", "texts", "tokens/word", "tokens/char", "bytes/token",
            "unknown", "missing", "comes back", "1-char")  # fmt: skip
    rows = [
        head,
        *(_format_row(name, whole, part) for name, whole in inspections for part in whole.languages),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _format_row(name: str, inspection: Inspection, fertility: Fertility) -> tuple[str, ...]:
    return (
        name, f"{inspection.vocabulary_size:,}", f"{inspection.unused_tokens:,}",
        f"{fertility.texts:,} {fertility.language}",
        f"{fertility.tokens_per_word:.2f}", f"{fertility.tokens_per_character:.3f}",
        f"{fertility.bytes_per_token:.2f}",
        f"{fertility.unk_fraction:.2%}", f"{fertility.uncovered_fraction:.2%}",
        f"{fertility.round_trip_fraction:.1%}", f"{fertility.single_character_fraction:.1%}",
    )  # fmt: skip


def format_remarks(name: str, inspection: Inspection) -> list[str]:
    """Lines for a terminal: the longest tokens, missing characters and first differences."""
    lines = []
    for part in inspection.languages:
        lines.append(f"{name}, {part.language}: longest tokens {_format_list(part.longest_tokens)}")
        if part.uncovered_examples:
            lines.append(f"{name}, {part.language}: no token spells {_format_list(part.uncovered_examples)}")
        lines += [
            f"{name}, {part.language}: {item['text']!r} comes back as {item['decoded']!r}"
            for item in part.differences[:2]
        ]
    if inspection.unused_tokens:
        lines.append(f"{name}: never used here, for example {_format_list(inspection.unused_examples)}")
    return lines


def _format_list(items: Sequence[str]) -> str:
    return " ".join(repr(item)[1:-1] for item in items)
