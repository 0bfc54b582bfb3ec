"""The quality rules: each measures a document and has its limit in :mod:`limits`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pretune.data.cleaning.limits import Limits, limits
from pretune.data.cleaning.steps import Drop, Outcome
from pretune.data.cleaning.text_stats import Document

UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo"})
"""Languages whose text is measured in characters."""

Measure = Callable[[Document], float]

RULES: dict[str, Measure] = {
    "max_broken": lambda d: d.broken,
    "min_units": lambda d: d.units,
    "max_units": lambda d: d.units,
    "min_letters": lambda d: d.letters,
    "max_placeholders": lambda d: d.placeholders,
    "max_curly": lambda d: d.curly,
    "min_sentences": lambda d: d.sentences,
    "min_mean_word": lambda d: d.mean_word,
    "max_mean_word": lambda d: d.mean_word,
    "min_alphabetic": lambda d: d.alphabetic,
    "min_stop_words": lambda d: d.stop_words,
    "max_symbols": lambda d: d.symbols,
    "max_bullet_lines": lambda d: d.bullet_lines,
    "max_ellipsis_lines": lambda d: d.ellipsis_lines,
    "min_ended_lines": lambda d: d.ended_lines,
    "max_short_lines": lambda d: d.short_lines,
    "max_duplicate_lines": lambda d: d.line_repeats[0],
    "max_duplicate_line_characters": lambda d: d.line_repeats[1],
    "max_duplicate_paragraphs": lambda d: d.paragraph_repeats[0],
    "max_duplicate_paragraph_characters": lambda d: d.paragraph_repeats[1],
    "max_top_2_grams": lambda d: d.grams[2][0],
    "max_top_3_grams": lambda d: d.grams[3][0],
    "max_top_4_grams": lambda d: d.grams[4][0],
    "max_repeated_5_grams": lambda d: d.grams[5][1],
    "max_repeated_6_grams": lambda d: d.grams[6][1],
    "max_repeated_7_grams": lambda d: d.grams[7][1],
    "max_repeated_8_grams": lambda d: d.grams[8][1],
    "max_repeated_9_grams": lambda d: d.grams[9][1],
    "max_repeated_10_grams": lambda d: d.grams[10][1],
}
"""In the order in which they are asked, the cheap ones first; the names are the fields of Limits."""

_WORDS_ONLY = frozenset({"min_mean_word", "max_mean_word"})
_KNOWN_STOP_WORDS = frozenset({"en", "zh"})

# C4's, and what stands at the foot of Chinese pages.
_PAGE_LINE = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies"
    r"|ICP[备证]|公网安备|版权所有|隐私政策|不良信息举报|点击进入|扫一扫|扫描二维码",
    re.IGNORECASE,
)
_ENDED = re.compile(r"[.!?\"”。！？…][」』”’）)]?$")


class Judge:
    """Judges documents in words, or in characters, by limits."""

    def __init__(self, bounds: Limits, *, characters: bool) -> None:
        self._characters = characters
        asked = bounds.model_dump(exclude_none=True)
        self._rules = [
            (name, measure, asked[name], name.startswith("min_"))
            for name, measure in RULES.items()
            if name in asked and not (characters and name in _WORDS_ONLY)
        ]
        grams = [int(name.split("_")[2]) for name in asked if name.endswith("_grams")]
        self._first_gram = min(grams, default=2)
        self.asks = bool(self._rules)
        """Is there any limit?"""

    def judge(self, text: str, language: str) -> Outcome:
        """The text as it is, or the first rule that it breaks."""
        document = Document(text, self._characters, self._first_gram)
        for name, measure, bound, lowest in self._rules:
            value = measure(document)
            if (value < bound if lowest else value > bound) and _speaks(name, language):
                return Drop(name, f"{value:.3g}, limit {bound:g}")
        return text


def judges(preset: str, words: Limits, characters: Limits) -> tuple[Judge, Judge]:
    """(of text in words, of text in characters), with the user's own limits over the preset's."""
    return (
        Judge(limits(preset, words, characters=False), characters=False),
        Judge(limits(preset, characters, characters=True), characters=True),
    )


def page_lines(text: str) -> str:
    """The text without the machinery of a page: scripts, cookies, registration numbers (C4, section 2.2)."""
    if not _PAGE_LINE.search(text):
        return text
    return "\n".join(line for line in text.split("\n") if not _PAGE_LINE.search(line))


def ended_lines(text: str) -> str:
    """The lines that end a sentence, or are empty (C4, section 2.2)."""
    lines = (line.rstrip() for line in text.split("\n"))
    return "\n".join(line for line in lines if not line or _ENDED.search(line))


def word_list(words: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern of listed words: whole words of Latin script, stretches of others."""
    listed = sorted({word.strip() for word in words if word.strip()}, key=lambda word: (-len(word), word))
    parts = [rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word) for word in listed]
    return re.compile("|".join(parts), re.IGNORECASE) if parts else None


def without_listed(text: str, listed: re.Pattern[str]) -> Outcome:
    """The text, or that a listed word stands in it."""
    found = listed.search(text)
    return Drop("listed_word", found[0]) if found else text


def _speaks(name: str, language: str) -> bool:
    """Does a rule know the language?"""
    return name != "min_stop_words" or language in _KNOWN_STOP_WORDS
