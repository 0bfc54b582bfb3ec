"""What cleaning does to a text, as settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pretune.config import Settings
from pretune.data.cleaning.limits import Limits
from pretune.data.cleaning.redaction import PiiType


class CleaningSettings(Settings):
    """Every step of cleaning, in the order in which it is taken."""

    boilerplate_min_documents: int | None = Field(default=None, ge=2)
    """Take out the lines that stand in so many documents or more; reads the text twice."""
    unicode: bool = True
    """Mend encodings, make line ends even, take out control characters."""
    character_width: Literal["keep", "half", "chinese"] = "keep"
    """half: full-width letters and digits as ASCII. chinese: marks beside Chinese as Chinese ones, too."""
    chinese_script: Literal["keep", "simplified", "traditional"] = "keep"
    remove_page_lines: bool | None = None
    """Take out lines on cookies, scripts and registration numbers; None: where the rules are ``web``."""
    keep_terminated_lines: bool = False
    """Keep only the lines that end a sentence, as C4 did; takes out headings, and poems."""
    languages: tuple[str, ...] = ()
    """Keep these only (en, zh ...), and texts too short to tell."""
    rules: Literal["off", "light", "web"] = "light"
    """light takes out what is no language; web what Gopher, C4 and FineWeb took out of the web."""
    word_limits: Limits = Limits()
    """Limits in place of the preset's, for languages with spaces between words."""
    character_limits: Limits = Limits()
    """The same for Chinese, Japanese, Thai."""
    bad_words: str | None = None
    """A file with a word a line; a document with one of them goes."""
    decontaminate: tuple[str, ...] = ()
    """Evaluation files; what stands in them goes."""
    decontaminate_mode: Literal["drop", "cut"] = "drop"
    """The whole document, or the shared passage."""
    redact: tuple[PiiType, ...] = ()
    """email, national_id, card, phone, ip."""
    redaction_tags: dict[PiiType, str] = Field(default_factory=dict)
    """In place of [EMAIL], [ID], [CARD], [PHONE], [IP]."""
    remove_stop_words: bool = False
    deduplicate: Literal["off", "exact", "near"] = "exact"
    """near takes out exact ones, too."""
    near_duplicate_threshold: float = Field(default=0.8, ge=0.5, le=1.0)
    """Jaccard similarity of five-word (or five-character) sets from which two texts are near duplicates."""
