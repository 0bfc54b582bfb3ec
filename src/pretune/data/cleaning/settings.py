"""What cleaning does to a text, as settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pretune.config import Settings
from pretune.data.cleaning.limits import Limits
from pretune.data.cleaning.redaction import PiiType


class CleaningSettings(Settings):
    """Every step of cleaning, in the order in which it is taken."""

    boilerplate: int | None = Field(default=None, ge=2)
    """Take out the lines that stand in so many documents or more; reads the text twice."""
    unicode: bool = True
    """Mend encodings, make line ends even, take out control characters."""
    width: Literal["keep", "half", "chinese"] = "keep"
    """half: full-width letters and digits as ASCII. chinese: marks beside Chinese as Chinese ones, too."""
    script: Literal["keep", "simplified", "traditional"] = "keep"
    page_lines: bool | None = None
    """Take out lines on cookies, scripts and registration numbers; None: where the rules are ``web``."""
    ended_lines: bool = False
    """Keep only the lines that end a sentence, as C4 did; takes out headings, and poems."""
    languages: tuple[str, ...] = ()
    """Keep these only (en, zh ...), and texts too short to tell."""
    rules: Literal["off", "light", "web"] = "light"
    """light takes out what is no language; web what Gopher, C4 and FineWeb took out of the web."""
    words: Limits = Limits()
    """Limits in place of the preset's, for languages with spaces between words."""
    characters: Limits = Limits()
    """The same for Chinese, Japanese, Thai."""
    bad_words: str | None = None
    """A file with a word a line; a document with one of them goes."""
    against: tuple[str, ...] = ()
    """Evaluation files; what stands in them goes."""
    contaminated: Literal["drop", "cut"] = "drop"
    """The whole document, or the shared passage."""
    redact: tuple[PiiType, ...] = ()
    """email, identity, card, phone, ip."""
    tags: dict[PiiType, str] = Field(default_factory=dict)
    """In place of [EMAIL], [ID], [CARD], [PHONE], [IP]."""
    remove_stop_words: bool = False
    duplicates: Literal["keep", "exact", "near"] = "exact"
    """near takes out exact ones, too."""
    threshold: float = Field(default=0.8, ge=0.5, le=1.0)
    """Jaccard similarity of five-word (or five-character) sets from which two texts are near duplicates."""
