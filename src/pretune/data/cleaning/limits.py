"""The limits of the quality rules, and the presets.

Sources of ``web`` for text in words: Gopher (Rae et al. 2021, appendix A.1.1 and table A1), C4 (Raffel et al.
2020, section 2.2, at the thresholds of its released code) and FineWeb (Penedo et al. 2024, section 3.6).
Chinese has no such published set. Ours puts a character where they put half a word: n-grams are twice as
long, lengths doubled; a Han share of 0.3 and a line length of 10 are ChineseWebText's (Chen et al. 2023),
function characters stand for stop words, 。！？… for the full stop; nothing looks at spaces.
``light`` is ours: it takes out what is no language, and leaves poems, statutes, lists and dialogue.
"""

from __future__ import annotations

from pydantic import Field

from pretune.config import Settings

Share = float | None


class Limits(Settings):
    """Bounds on what is measured of a document; None is the preset's. A unit is a word or a Han character."""

    max_broken_character_fraction: Share = None
    """Share of characters that are control characters or stand for lost ones (U+FFFD, 锟斤拷)."""
    min_units: int | None = Field(default=None, ge=0)
    max_units: int | None = Field(default=None, ge=1)
    min_letter_fraction: Share = None
    """Share of visible characters that are letters of any script."""
    max_placeholders: int | None = None
    """How often ``lorem ipsum`` or ``此处省略`` stand in it."""
    max_curly_brackets: int | None = None
    """How many ``{``: they are rare outside code."""
    min_sentences: int | None = None
    min_mean_word_length: float | None = None
    max_mean_word_length: float | None = None
    """Mean length of a word in characters; of text in words only."""
    min_alphabetic_fraction: Share = None
    """Share of words with a letter; in Chinese, share of visible characters that are Han."""
    min_stop_words: int | None = None
    """How many different ones of the, be, to, of, and, that, have, with; or of 的 了 是 在 ..."""
    max_symbol_ratio: Share = None
    """Hash signs and ellipses for each unit."""
    max_bullet_line_fraction: Share = None
    max_ellipsis_line_fraction: Share = None
    min_terminated_line_fraction: Share = None
    """Share of lines that end in a mark of punctuation."""
    max_short_line_fraction: Share = None
    """Share of lines below 30 characters; in Chinese below 10."""
    max_duplicate_line_fraction: Share = None
    """Share of lines that stand in the document before."""
    max_duplicate_line_character_fraction: Share = None
    max_duplicate_paragraph_fraction: Share = None
    max_duplicate_paragraph_character_fraction: Share = None
    max_top_2_gram_fraction: Share = None
    """Share of characters in the commonest 2-gram; in Chinese 2n characters stand for an n-gram."""
    max_top_3_gram_fraction: Share = None
    max_top_4_gram_fraction: Share = None
    max_repeated_5_gram_fraction: Share = None
    """Share of characters in 5-grams that stand in the document before."""
    max_repeated_6_gram_fraction: Share = None
    max_repeated_7_gram_fraction: Share = None
    max_repeated_8_gram_fraction: Share = None
    max_repeated_9_gram_fraction: Share = None
    max_repeated_10_gram_fraction: Share = None


_REPETITION = {
    "max_duplicate_line_fraction": 0.3, "max_duplicate_paragraph_fraction": 0.3,
    "max_duplicate_paragraph_character_fraction": 0.2,
    "max_top_2_gram_fraction": 0.2, "max_top_3_gram_fraction": 0.18, "max_top_4_gram_fraction": 0.16,
    "max_repeated_5_gram_fraction": 0.15, "max_repeated_6_gram_fraction": 0.14,
    "max_repeated_7_gram_fraction": 0.13, "max_repeated_8_gram_fraction": 0.12,
    "max_repeated_9_gram_fraction": 0.11, "max_repeated_10_gram_fraction": 0.1,
    "max_duplicate_line_character_fraction": 0.1,  # FineWeb's; Gopher's is 0.2
}  # fmt: skip
_LINES = {
    "max_bullet_line_fraction": 0.9,
    "max_ellipsis_line_fraction": 0.3,
    "min_terminated_line_fraction": 0.12,
    "max_short_line_fraction": 0.67,
}
_WEB = {
    **_REPETITION,
    **_LINES,
    "max_broken_character_fraction": 0.01,
    "max_placeholders": 0,
    "max_curly_brackets": 0,
    "max_symbol_ratio": 0.1,
}
_LIGHT = {
    "max_broken_character_fraction": 0.02, "min_units": 5, "min_letter_fraction": 0.3,
    "max_symbol_ratio": 0.5,
    "max_duplicate_line_character_fraction": 0.7, "max_repeated_10_gram_fraction": 0.7,
}  # fmt: skip

Preset = dict[str, float]
PRESETS: dict[str, tuple[Preset, Preset]] = {
    "off": ({}, {}),
    "light": ({**_LIGHT, "max_mean_word_length": 30}, _LIGHT),
    "web": (
        {
            **_WEB, "min_units": 50, "max_units": 100_000, "min_mean_word_length": 3,
            "max_mean_word_length": 10,
            "min_alphabetic_fraction": 0.8, "min_stop_words": 2, "min_sentences": 5,
        },
        {
            **_WEB, "min_units": 100, "max_units": 200_000, "min_alphabetic_fraction": 0.3,
            "min_stop_words": 2,
            "min_sentences": 5,
        },
    ),
}  # fmt: skip
"""(text in words, text in characters) of each preset."""


def resolve_limits(preset: str, overrides: Limits, *, characters: bool) -> Limits:
    """The limits of a preset, with those that the user set in their place; what is then None is not asked."""
    given = overrides.model_dump(exclude_none=True)
    return Limits.model_validate({**PRESETS[preset][characters], **given})
