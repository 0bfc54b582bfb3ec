"""The steps that the settings ask for, one after the other, on one text or on a batch of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from pretune.data.cleaning import conversion, rules
from pretune.data.cleaning.boilerplate import remove_lines
from pretune.data.cleaning.contamination import ContaminationIndex, Hashes
from pretune.data.cleaning.language import UNKNOWN, detect_language
from pretune.data.cleaning.near_duplicates import Signatures, shingle_hashes, signatures
from pretune.data.cleaning.redaction import TAGS, redact
from pretune.data.cleaning.repair import repair
from pretune.data.cleaning.settings import CleaningSettings
from pretune.data.cleaning.steps import Drop, StepResult
from pretune.data.cleaning.stop_words import remove_stop_words
from pretune.data.sources.text_hash import text_hash
from pretune.errors import DataError


@dataclass(frozen=True, slots=True)
class CleanerResources:
    """What the steps know besides the text; goes to every process."""

    boilerplate_hashes: frozenset[int] = frozenset()
    """Hashes of boilerplate lines."""
    evaluation_hashes: Hashes | None = None
    bad_words: tuple[str, ...] = ()


@dataclass(slots=True)
class CleaningResult:
    """A text with what the steps found."""

    text: str
    language: str = UNKNOWN
    drop: Drop | None = None
    """Why it goes, if it does; ``text`` is then as the last step before left it."""
    redacted: Counter[str] = field(default_factory=Counter)


CleaningStep = Callable[[CleaningResult], StepResult]


class Cleaner:
    """Cleans texts; the same text always in the same way, in whichever process."""

    def __init__(self, settings: CleaningSettings, resources: CleanerResources) -> None:
        self.settings, self._resources = settings, resources
        self._contamination = (
            ContaminationIndex(resources.evaluation_hashes)
            if resources.evaluation_hashes is not None
            else None
        )
        self._bad_words = rules.compile_word_list(resources.bad_words)
        self._quality_filters = rules.build_quality_filters(
            settings.rules, settings.word_limits, settings.character_limits
        )
        self.seconds: dict[str, float] = {}
        """Time spent in each step."""
        self._steps = [(name, step) for name, step, wanted in self._all_steps() if wanted]

    def clean(self, text: str) -> CleaningResult:
        """Take the steps until one of them drops the text."""
        cleaned = CleaningResult(text)
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
            cleaned.drop = Drop("empty")
        return cleaned

    def _all_steps(self) -> list[tuple[str, CleaningStep, bool]]:
        """(name, step, is it wanted?), in order."""
        s = self.settings
        paged = s.rules == "web" if s.remove_page_lines is None else s.remove_page_lines
        return [
            (
                "boilerplate",
                lambda c: remove_lines(c.text, self._resources.boilerplate_hashes),
                bool(s.boilerplate_min_documents),
            ),
            ("unicode", lambda c: repair(c.text), s.unicode),
            (
                "character_width",
                lambda c: conversion.WIDTHS[s.character_width](c.text),
                s.character_width != "keep",
            ),
            (
                "chinese_script",
                lambda c: conversion.SCRIPTS[s.chinese_script](c.text),
                s.chinese_script != "keep",
            ),
            ("remove_page_lines", lambda c: rules.remove_page_lines(c.text), paged),
            ("keep_terminated_lines", lambda c: rules.keep_terminated_lines(c.text), s.keep_terminated_lines),
            ("language", self._filter_language, True),
            ("rules", self._filter_quality, any(judge.has_rules for judge in self._quality_filters)),
            ("bad_words", self._filter_bad_words, self._bad_words is not None),
            ("decontaminate", self._decontaminate, self._contamination is not None),
            ("redact", self._redact, bool(s.redact)),
            ("stop_words", lambda c: remove_stop_words(c.text), s.remove_stop_words),
        ]

    def _filter_language(self, result: CleaningResult) -> StepResult:
        result.language = detect_language(result.text)
        if self.settings.languages and result.language not in (*self.settings.languages, UNKNOWN):
            return Drop("language", result.language)
        return result.text

    def _filter_quality(self, result: CleaningResult) -> StepResult:
        judge = self._quality_filters[result.language in rules.UNSPACED_LANGUAGES]
        return judge.check(result.text, result.language)

    def _filter_bad_words(self, result: CleaningResult) -> StepResult:
        assert self._bad_words is not None
        return rules.filter_bad_words(result.text, self._bad_words)

    def _decontaminate(self, result: CleaningResult) -> StepResult:
        assert self._contamination is not None
        return self._contamination.decontaminate(result.text, self.settings.decontaminate_mode)

    def _redact(self, result: CleaningResult) -> StepResult:
        tags = {kind: self.settings.redaction_tags.get(kind, TAGS[kind]) for kind in self.settings.redact}
        text, counts = redact(result.text, tags)
        result.redacted.update(counts)
        return text


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A text on its way to a worker."""

    text: str
    location: str
    source: str
    """Which of the sources that were asked for it is from."""


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """A text that no step dropped, as it will be written."""

    line: bytes
    characters: int
    size: int
    """Bytes of the text."""
    language: str
    hash: int
    preview: str
    """Its beginning, to be shown should it be a duplicate."""


@dataclass(frozen=True, slots=True)
class DroppedDocument:
    """A text that goes."""

    reason: str
    detail: str
    language: str
    preview: str


@dataclass(frozen=True, slots=True)
class CleanedBatch:
    """What a worker hands back: an item a text, in order."""

    items: tuple[KeptDocument | DroppedDocument, ...]
    signatures: Signatures | None
    """(kept, PERMUTATIONS), of those that were kept."""
    seconds: Mapping[str, float]
    redacted: Mapping[str, int]


PREVIEW_CHARACTERS = 160
"""Characters that are shown of a text."""


def clean_batch(cleaner: Cleaner, documents: Sequence[RawDocument]) -> CleanedBatch:
    """Clean texts, and hash those that stay as far as finding duplicates asks for it."""
    cleaner.seconds = {}
    items: list[KeptDocument | DroppedDocument] = []
    shingles: list[Hashes] = []
    redacted: Counter[str] = Counter()
    near = cleaner.settings.deduplicate == "near"
    for draft in documents:
        cleaned = cleaner.clean(draft.text)
        head = cleaned.text.strip()[:PREVIEW_CHARACTERS]
        if cleaned.drop is not None:
            items.append(DroppedDocument(cleaned.drop.reason, cleaned.drop.detail, cleaned.language, head))
            continue
        redacted.update(cleaned.redacted)
        began = time.process_time()
        items.append(_build_kept_document(cleaned, draft, head, cleaner.settings))
        hashed = time.process_time()
        if near:
            shingles.append(
                shingle_hashes(cleaned.text, characters=cleaned.language in rules.UNSPACED_LANGUAGES)
            )
        _add_seconds(cleaner.seconds, "exact_duplicates", hashed - began)
        _add_seconds(cleaner.seconds, "near_duplicates", time.process_time() - hashed)
    began = time.process_time()
    found = signatures(shingles) if near else None
    _add_seconds(cleaner.seconds, "near_duplicates", time.process_time() - began)
    return CleanedBatch(tuple(items), found, cleaner.seconds, redacted)


def _build_kept_document(
    result: CleaningResult, document: RawDocument, preview: str, settings: CleaningSettings
) -> KeptDocument:
    text = result.text
    fields = {"text": text, "source": document.location, "language": result.language}
    try:
        line = orjson.dumps(fields)
    except orjson.JSONEncodeError:  # half a surrogate pair, where Unicode is not to be mended
        text = text.encode("utf-8", "replace").decode()
        line = orjson.dumps(
            {**fields, "text": text, "source": document.location.encode("utf-8", "replace").decode()}
        )
    value = text_hash(text) if settings.deduplicate != "off" else 0
    return KeptDocument(line, len(text), len(text.encode()), result.language, value, preview)


def _add_seconds(seconds: dict[str, float], name: str, elapsed: float) -> None:
    seconds[name] = seconds.get(name, 0.0) + elapsed


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
