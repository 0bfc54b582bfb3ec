"""The steps that the settings ask for, one after the other, on one text or on a batch of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from pretune.data.cleaning import conversion, rules
from pretune.data.cleaning.boilerplate import without_lines
from pretune.data.cleaning.contamination import Evaluations, Hashes
from pretune.data.cleaning.language import UNKNOWN, detect
from pretune.data.cleaning.near_duplicates import Signatures, grams, signatures
from pretune.data.cleaning.redaction import TAGS, redact
from pretune.data.cleaning.repair import repair
from pretune.data.cleaning.settings import CleaningSettings
from pretune.data.cleaning.steps import Drop, Outcome
from pretune.data.cleaning.stop_words import without_stop_words
from pretune.data.sources.text_hash import text_hash
from pretune.errors import DataError


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the steps know besides the text; goes to every process."""

    recurring: frozenset[int] = frozenset()
    """Hashes of boilerplate lines."""
    evaluations: Hashes | None = None
    bad_words: tuple[str, ...] = ()


@dataclass(slots=True)
class Cleaned:
    """A text with what the steps found."""

    text: str
    language: str = UNKNOWN
    drop: Drop | None = None
    """Why it goes, if it does; ``text`` is then as the last step before left it."""
    redacted: Counter[str] = field(default_factory=Counter)


Step = Callable[[Cleaned], Outcome]


class Cleaner:
    """Cleans texts; the same text always in the same way, in whichever process."""

    def __init__(self, settings: CleaningSettings, knowledge: Knowledge) -> None:
        self.settings, self._knowledge = settings, knowledge
        self._evaluations = Evaluations(knowledge.evaluations) if knowledge.evaluations is not None else None
        self._listed = rules.word_list(knowledge.bad_words)
        self._judges = rules.judges(settings.rules, settings.words, settings.characters)
        self.seconds: dict[str, float] = {}
        """Time spent in each step."""
        self._steps = [(name, step) for name, step, wanted in self._all() if wanted]

    def clean(self, text: str) -> Cleaned:
        """Take the steps until one of them drops the text."""
        cleaned = Cleaned(text)
        before = time.process_time()
        for name, step in self._steps:
            outcome = step(cleaned)
            now = time.process_time()
            self.seconds[name] = self.seconds.get(name, 0.0) + now - before
            before = now
            if isinstance(outcome, Drop):
                cleaned.drop = outcome
                return cleaned
            cleaned.text = outcome
        if not cleaned.text.strip():
            cleaned.drop = Drop("nothing_left")
        return cleaned

    def _all(self) -> list[tuple[str, Step, bool]]:
        """(name, step, is it wanted?), in order."""
        s = self.settings
        paged = s.rules == "web" if s.page_lines is None else s.page_lines
        return [
            ("boilerplate", lambda c: without_lines(c.text, self._knowledge.recurring), bool(s.boilerplate)),
            ("unicode", lambda c: repair(c.text), s.unicode),
            ("width", lambda c: conversion.WIDTHS[s.width](c.text), s.width != "keep"),
            ("script", lambda c: conversion.SCRIPTS[s.script](c.text), s.script != "keep"),
            ("page_lines", lambda c: rules.page_lines(c.text), paged),
            ("ended_lines", lambda c: rules.ended_lines(c.text), s.ended_lines),
            ("language", self._language, True),
            ("rules", self._judge, any(judge.asks for judge in self._judges)),
            ("bad_words", self._without_listed, self._listed is not None),
            ("against", self._decontaminate, self._evaluations is not None),
            ("redact", self._redact, bool(s.redact)),
            ("stop_words", lambda c: without_stop_words(c.text), s.remove_stop_words),
        ]

    def _language(self, cleaned: Cleaned) -> Outcome:
        cleaned.language = detect(cleaned.text)
        if self.settings.languages and cleaned.language not in (*self.settings.languages, UNKNOWN):
            return Drop("language", cleaned.language)
        return cleaned.text

    def _judge(self, cleaned: Cleaned) -> Outcome:
        judge = self._judges[cleaned.language in rules.UNSPACED]
        return judge.judge(cleaned.text, cleaned.language)

    def _without_listed(self, cleaned: Cleaned) -> Outcome:
        assert self._listed is not None
        return rules.without_listed(cleaned.text, self._listed)

    def _decontaminate(self, cleaned: Cleaned) -> Outcome:
        assert self._evaluations is not None
        return self._evaluations.clean(cleaned.text, self.settings.contaminated)

    def _redact(self, cleaned: Cleaned) -> Outcome:
        tags = {kind: self.settings.tags.get(kind, TAGS[kind]) for kind in self.settings.redact}
        text, counts = redact(cleaned.text, tags)
        cleaned.redacted.update(counts)
        return text


@dataclass(frozen=True, slots=True)
class Draft:
    """A text on its way to a worker."""

    text: str
    where: str
    source: str
    """Which of the sources that were asked for it is from."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A text that no step dropped, as it will be written."""

    line: bytes
    characters: int
    size: int
    """Bytes of the text."""
    language: str
    hash: int
    head: str
    """Its beginning, to be shown should it be a duplicate."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A text that goes."""

    reason: str
    detail: str
    language: str
    head: str


@dataclass(frozen=True, slots=True)
class CleanedBatch:
    """What a worker hands back: an item a text, in order."""

    items: tuple[Kept | Dropped, ...]
    signatures: Signatures | None
    """(kept, PERMUTATIONS), of those that were kept."""
    seconds: Mapping[str, float]
    redacted: Mapping[str, int]


HEAD = 160
"""Characters that are shown of a text."""


def clean_batch(cleaner: Cleaner, drafts: Sequence[Draft]) -> CleanedBatch:
    """Clean texts, and hash those that stay as far as finding duplicates asks for it."""
    cleaner.seconds = {}
    items: list[Kept | Dropped] = []
    shingles: list[Hashes] = []
    redacted: Counter[str] = Counter()
    near = cleaner.settings.duplicates == "near"
    for draft in drafts:
        cleaned = cleaner.clean(draft.text)
        head = cleaned.text.strip()[:HEAD]
        if cleaned.drop is not None:
            items.append(Dropped(cleaned.drop.reason, cleaned.drop.detail, cleaned.language, head))
            continue
        redacted.update(cleaned.redacted)
        began = time.process_time()
        items.append(_kept(cleaned, draft, head, cleaner.settings))
        hashed = time.process_time()
        if near:
            shingles.append(grams(cleaned.text, characters=cleaned.language in rules.UNSPACED))
        _spend(cleaner.seconds, "exact_duplicates", hashed - began)
        _spend(cleaner.seconds, "near_duplicates", time.process_time() - hashed)
    began = time.process_time()
    found = signatures(shingles) if near else None
    _spend(cleaner.seconds, "near_duplicates", time.process_time() - began)
    return CleanedBatch(tuple(items), found, cleaner.seconds, redacted)


def _kept(cleaned: Cleaned, draft: Draft, head: str, settings: CleaningSettings) -> Kept:
    text = cleaned.text
    fields = {"text": text, "source": draft.where, "language": cleaned.language}
    try:
        line = orjson.dumps(fields)
    except orjson.JSONEncodeError:  # half a surrogate pair, where Unicode is not to be mended
        text = text.encode("utf-8", "replace").decode()
        line = orjson.dumps(
            {**fields, "text": text, "source": draft.where.encode("utf-8", "replace").decode()}
        )
    value = text_hash(text) if settings.duplicates != "keep" else 0
    return Kept(line, len(text), len(text.encode()), cleaned.language, value, head)


def _spend(seconds: dict[str, float], name: str, more: float) -> None:
    seconds[name] = seconds.get(name, 0.0) + more


def read_word_list(path: str | None) -> tuple[str, ...]:
    """The words of a file, one a line.

    Raises:
        DataError: the file cannot be read, or has none.
    """
    if path is None:
        return ()
    try:
        words = tuple(
            line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the list of words cannot be read: {error}") from None
    if not words:
        raise DataError(f"{path}: the list of words is empty")
    return words
