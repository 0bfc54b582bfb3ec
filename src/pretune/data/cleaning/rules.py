"""The quality rules: each measures a document and has its limit in :mod:`limits`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pretune.data.cleaning.limits import Limits, resolve_limits
from pretune.data.cleaning.steps import Drop, StepResult
from pretune.data.cleaning.text_stats import TextStats

UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo"})
"""Languages whose text is measured in characters."""

Measure = Callable[[TextStats], float]

RULES: dict[str, Measure] = {
    "max_broken_character_fraction": lambda d: d.broken_fraction,
    "min_units": lambda d: d.num_units,
    "max_units": lambda d: d.num_units,
    "min_letter_fraction": lambda d: d.letter_fraction,
    "max_placeholders": lambda d: d.num_placeholders,
    "max_curly_brackets": lambda d: d.num_curly_brackets,
    "min_sentences": lambda d: d.num_sentences,
    "min_mean_word_length": lambda d: d.mean_word_length,
    "max_mean_word_length": lambda d: d.mean_word_length,
    "min_alphabetic_fraction": lambda d: d.alphabetic_fraction,
    "min_stop_words": lambda d: d.num_stop_words,
    "max_symbol_ratio": lambda d: d.symbol_ratio,
    "max_bullet_line_fraction": lambda d: d.bullet_line_fraction,
    "max_ellipsis_line_fraction": lambda d: d.ellipsis_line_fraction,
    "min_terminated_line_fraction": lambda d: d.terminated_line_fraction,
    "max_short_line_fraction": lambda d: d.short_line_fraction,
    "max_duplicate_line_fraction": lambda d: d.duplicate_line_fractions[0],
    "max_duplicate_line_character_fraction": lambda d: d.duplicate_line_fractions[1],
    "max_duplicate_paragraph_fraction": lambda d: d.duplicate_paragraph_fractions[0],
    "max_duplicate_paragraph_character_fraction": lambda d: d.duplicate_paragraph_fractions[1],
    "max_top_2_gram_fraction": lambda d: d.ngram_fractions[2][0],
    "max_top_3_gram_fraction": lambda d: d.ngram_fractions[3][0],
    "max_top_4_gram_fraction": lambda d: d.ngram_fractions[4][0],
    "max_repeated_5_gram_fraction": lambda d: d.ngram_fractions[5][1],
    "max_repeated_6_gram_fraction": lambda d: d.ngram_fractions[6][1],
    "max_repeated_7_gram_fraction": lambda d: d.ngram_fractions[7][1],
    "max_repeated_8_gram_fraction": lambda d: d.ngram_fractions[8][1],
    "max_repeated_9_gram_fraction": lambda d: d.ngram_fractions[9][1],
    "max_repeated_10_gram_fraction": lambda d: d.ngram_fractions[10][1],
}
"""In the order in which they are asked, the cheap ones first; the names are the fields of Limits."""

_WORD_RULES = frozenset({"min_mean_word_length", "max_mean_word_length"})
_STOP_WORD_LANGUAGES = frozenset({"en", "zh"})

# C4's, and what stands at the foot of Chinese pages.
_PAGE_LINE = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
    r"|ICP[备证]|公网安备|版权所有|隐私政策|不良信息举报|点击进入|扫一扫|扫描二维码",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?\"”。！？…][」』”’）)]?$")


class QualityFilter:
    """Judges documents in words, or in characters, by limits."""

    def __init__(self, limits: Limits, *, characters: bool) -> None:
        self._characters = characters
        asked = limits.model_dump(exclude_none=True)
        self._rules = [
            (name, measure, asked[name], name.startswith("min_"))
            for name, measure in RULES.items()
            if name in asked and not (characters and name in _WORD_RULES)
        ]
        grams = [int(name.split("_")[2]) for name in asked if name.endswith("_gram_fraction")]
        self._min_ngram = min(grams, default=2)
        self.has_rules = bool(self._rules)
        """Is there any limit?"""

    def check(self, text: str, language: str) -> StepResult:
        """The text as it is, or the first rule that it breaks."""
        document = TextStats(text, self._characters, self._min_ngram)
        for name, measure, bound, lowest in self._rules:
            value = measure(document)
            if (value < bound if lowest else value > bound) and _supports_language(name, language):
                return Drop(name, f"{value:.3g}, limit {bound:g}")
        return text


def build_quality_filters(
    preset: str, words: Limits, characters: Limits
) -> tuple[QualityFilter, QualityFilter]:
    """(of text in words, of text in characters), with the user's own limits over the preset's."""
    return (
        QualityFilter(resolve_limits(preset, words, characters=False), characters=False),
        QualityFilter(resolve_limits(preset, characters, characters=True), characters=True),
    )


def remove_page_lines(text: str) -> str:
    """The text without the machinery of a page: scripts, cookies, registration numbers (C4, section 2.2)."""
    if not _PAGE_LINE.search(text):
        return text
    return "\n".join(line for line in text.split("\n") if not _PAGE_LINE.search(line))


def keep_terminated_lines(text: str) -> str:
    """The lines that end a sentence, or are empty (C4, section 2.2)."""
    lines = (line.rstrip() for line in text.split("\n"))
    return "\n".join(line for line in lines if not line or _SENTENCE_END.search(line))


def compile_word_list(words: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern of listed words: whole words of Latin script, stretches of others."""
    listed = sorted({word.strip() for word in words if word.strip()}, key=lambda word: (-len(word), word))
    parts = [rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word) for word in listed]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def filter_bad_words(text: str, bad_words: re.Pattern[str]) -> StepResult:
    """The text, or that a listed word stands in it."""
    found = bad_words.search(text)
    return Drop("bad_word", found[0]) if found else text


def _supports_language(name: str, language: str) -> bool:
    """Does a rule know the language?"""
    return name != "min_stop_words" or language in _STOP_WORD_LANGUAGES
