"""What a tokenizer does to a text: fertility, coverage, what comes back, what of it is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pretune.text.segmentation import SENTENCE, WORD, count_words, mostly_chinese, starts
from pretune.text.tokenizer import Encoded, Tokenizer, well_formed
from pretune.types import BoolArray, IntArray

LANGUAGES = ("zh", "other")
"""Texts of mostly Chinese characters, and all others."""
_BATCH = 256
_DIFFERENCES = 5
_LISTED = 10
_AROUND = 12  # characters shown on either side of a difference


@dataclass
class _Tally:
    """Sums over the texts of one language."""

    texts: int = 0
    characters: int = 0
    bytes: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    one_character: int = 0
    same: int = 0
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
    unknown: float
    """Share of the tokens that are the unknown token."""
    missing: float
    """Share of the characters that no token spells: they become unknown, or bytes."""
    missing_examples: tuple[str, ...]
    round_trip: float
    """Share of the texts that come back exactly."""
    differences: tuple[dict[str, str], ...]
    """The first texts that do not: ``text`` and what came ``back``, around the first difference."""
    one_character: float
    """Share of the tokens that show one character, or a part of one."""
    used: int
    """How many different tokens occur, without special ones."""
    longest: tuple[str, ...]
    """The longest tokens that occur."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a tokenizer does to a text."""

    vocabulary: int
    unused: int
    """Tokens, without special ones, that occur nowhere in the text."""
    unused_examples: tuple[str, ...]
    languages: tuple[Fertility, ...]


def inspect(tokenizer: Tokenizer, texts: Iterable[str]) -> Inspection:
    """Measure ``tokenizer`` on ``texts``, which are read once; memory does not grow with them."""
    tallies = {language: _Tally() for language in LANGUAGES}
    used = {language: np.zeros(tokenizer.vocabulary_size, np.int64) for language in LANGUAGES}
    known = _Known(tokenizer)
    for batch in _batches(texts):
        for text, encoded in zip(batch, tokenizer.encode_batch(batch), strict=True):
            language = LANGUAGES[0] if mostly_chinese(text) else LANGUAGES[1]
            used[language] += np.bincount(encoded.ids, minlength=tokenizer.vocabulary_size)
            _add(tallies[language], tokenizer, known, text, encoded)
    seen: BoolArray = np.logical_or.reduce([counts > 0 for counts in used.values()])
    seen[list(tokenizer.specials.all)] = True
    found = tuple(_fertility(tokenizer, name, tallies[name], used[name]) for name in LANGUAGES)
    unused = [id for id in np.flatnonzero(~seen).tolist() if tokenizer.token(id)]
    examples = tuple(tokenizer.decode([id]) for id in unused[-_LISTED:])  # what was learnt last
    languages = tuple(item for item in found if item.texts)
    return Inspection(tokenizer.vocabulary_size, len(unused), examples, languages)


class _Known:
    """Which characters have a token that spells them whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._found: dict[str, bool] = {}

    def __call__(self, character: str) -> bool:
        if character not in self._found:
            ids = self._tokenizer.encode(character).ids
            # Two tokens: a space, or SentencePiece's mark of a word, and then the character.
            whole = len(ids) <= 1 or (len(ids) == 2 and "\ufffd" not in self._tokenizer.decode(ids[1:]))
            unknown = self._tokenizer.specials.unknown
            self._found[character] = character.isspace() or (whole and unknown not in ids.tolist())
        return self._found[character]


def _add(tally: _Tally, tokenizer: Tokenizer, known: _Known, text: str, encoded: Encoded) -> None:
    tally.texts += 1
    tally.characters += len(text)
    tally.bytes += len(text.encode())
    tally.words += count_words(text)
    tally.tokens += len(encoded.ids)
    if tokenizer.specials.unknown is not None:
        tally.unknown += int((encoded.ids == tokenizer.specials.unknown).sum())
    tally.one_character += int((_visible(text, encoded.offsets) <= 1).sum())
    back = tokenizer.decode(encoded.ids, skip_special=False)
    tally.same += back == text
    if back != text and len(tally.differences) < _DIFFERENCES:
        tally.differences.append(_difference(text, back))
    for character, count in Counter(text).items():
        if not known(character):
            tally.missing[character] += count


def _visible(text: str, offsets: IntArray) -> IntArray:
    """(T,) characters of each token that are no space."""
    shown = np.concatenate([[0], np.cumsum(np.array([not c.isspace() for c in text], np.int64))])
    counts: IntArray = shown[offsets[:, 1]] - shown[offsets[:, 0]]
    return counts


def _difference(text: str, back: str) -> dict[str, str]:
    at = next(
        (i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back))
    )
    low, high = max(at - _AROUND, 0), at + _AROUND
    return {"text": text[low:high], "back": back[low:high]}


def _fertility(tokenizer: Tokenizer, language: str, tally: _Tally, used: IntArray) -> Fertility:
    used[list(tokenizer.specials.all)] = 0
    occurring = np.flatnonzero(used)
    lengths = tokenizer.byte_lengths()[occurring]
    longest = occurring[np.lexsort((occurring, -lengths))][:_LISTED]
    return Fertility(
        language=language,
        texts=tally.texts,
        characters=tally.characters,
        bytes=tally.bytes,
        tokens=tally.tokens,
        tokens_per_word=_share(tally.tokens, tally.words),
        tokens_per_character=_share(tally.tokens, tally.characters),
        bytes_per_token=_share(tally.bytes, tally.tokens),
        unknown=_share(tally.unknown, tally.tokens),
        missing=_share(tally.missing.total(), tally.characters),
        missing_examples=tuple(
            c for c, _ in sorted(tally.missing.items(), key=lambda item: (-item[1], item[0]))[:_LISTED]
        ),
        round_trip=_share(tally.same, tally.texts),
        differences=tuple(tally.differences),
        one_character=_share(tally.one_character, tally.tokens),
        used=len(occurring),
        longest=tuple(tokenizer.decode([id]) for id in longest.tolist()),
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(well_formed(text))
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def show(tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    """The tokens of ``text``: id, token as the vocabulary writes it, its characters, what starts at it."""
    text = well_formed(text)
    encoded = tokenizer.encode(text)
    flags = starts(text, encoded.offsets)
    return [
        {
            "id": id,
            "token": tokenizer.token(id),
            "text": text[low:high],
            "word": bool(flag & WORD),
            "sentence": bool(flag & SENTENCE),
        }
        for id, (low, high), flag in zip(
            encoded.ids.tolist(), encoded.offsets.tolist(), flags.tolist(), strict=True
        )
    ]


def table(inspections: Sequence[tuple[str, Inspection]]) -> list[str]:
    """Lines for a terminal: one a tokenizer and language, side by side."""
    head = ("tokenizer", "vocabulary", "unused", "texts", "tokens/word", "tokens/char", "bytes/token",
            "unknown", "missing", "comes back", "1-char")  # fmt: skip
    rows = [head, *(_row(name, whole, part) for name, whole in inspections for part in whole.languages)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _row(name: str, whole: Inspection, part: Fertility) -> tuple[str, ...]:
    return (
        name, f"{whole.vocabulary:,}", f"{whole.unused:,}", f"{part.texts:,} {part.language}",
        f"{part.tokens_per_word:.2f}", f"{part.tokens_per_character:.3f}", f"{part.bytes_per_token:.2f}",
        f"{part.unknown:.2%}", f"{part.missing:.2%}", f"{part.round_trip:.1%}", f"{part.one_character:.1%}",
    )  # fmt: skip


def remarks(name: str, inspection: Inspection) -> list[str]:
    """Lines for a terminal: the longest tokens, missing characters and first differences."""
    lines = []
    for part in inspection.languages:
        lines.append(f"{name}, {part.language}: longest tokens {_listed(part.longest)}")
        if part.missing_examples:
            lines.append(f"{name}, {part.language}: no token spells {_listed(part.missing_examples)}")
        lines += [
            f"{name}, {part.language}: {item['text']!r} comes back as {item['back']!r}"
            for item in part.differences[:2]
        ]
    if inspection.unused:
        lines.append(f"{name}: never used here, for example {_listed(inspection.unused_examples)}")
    return lines


def _listed(items: Sequence[str]) -> str:
    return " ".join(repr(item)[1:-1] for item in items)
