"""The language of a text: by its script, by py3langid (Lui and Baldwin 2012) where scripts do not say."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pretune.data.cleaning.characters import HAN, HANGUL, KANA, LATIN, LETTER, character_classes, code_points

UNKNOWN = "und"
"""The code of ISO 639 for a language that cannot be told."""
MAX_CHARACTERS = 4000
"""Characters that are looked at, from the middle of the text, where mastheads and licences are not."""
_MIN_CONFIDENCE = 0.5
_CODE_ALIASES = {"wuu": "zh"}
"""Codes that py3langid gives to Chinese among Latin letters."""
_ENGLISH = frozenset(
    ("the", "of", "and", "to", "that", "was", "with", "for", "he", "it", "his", "her", "from", "they", "this")
)
_WORD = re.compile(r"[a-z]+")


def detect_language(text: str) -> str:
    """Two letters of ISO 639-1, or :data:`UNKNOWN`.

    A text is Chinese where Han characters outweigh the rest (one stands for about three letters) and no more
    than a twentieth of them is kana. py3langid is asked of the others, of which it must be more sure than
    not; it knows 97 languages and is often wrong about a handful of words.
    """
    start = max(0, (len(text) - MAX_CHARACTERS) // 2)
    part = text[start : start + MAX_CHARACTERS]
    if part.isascii():
        return _detect_latin(part)
    counts = np.bincount(character_classes(code_points(part)), minlength=11)
    han, kana, hangul = int(counts[HAN]), int(counts[KANA]), int(counts[HANGUL])
    spaced = int(counts[LATIN] + counts[LETTER])
    if kana > 0.05 * (han + kana) and 3 * (han + kana) > spaced:
        return "ja"
    if hangul > han and 3 * hangul > spaced:
        return "ko"
    if han and 3 * han > spaced:
        return "zh"
    return _detect_latin(part)


def _detect_latin(sample: str) -> str:
    words = _WORD.findall(sample[:1000].lower())
    if len(words) >= 15 and sum(word in _ENGLISH for word in words) >= 0.15 * len(words):
        return "en"
    if sum(map(len, words)) < 8 and sample.isascii():
        return UNKNOWN
    name, certainty = _identifier().classify(sample[:600])
    return _CODE_ALIASES.get(name, str(name)) if certainty >= _MIN_CONFIDENCE else UNKNOWN


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
