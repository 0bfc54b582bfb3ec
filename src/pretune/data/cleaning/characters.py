"""The kind of every character of a text, looked up for all of them at once."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

OTHER, SPACE, LATIN, HAN, KANA, HANGUL, LETTER, DIGIT, PUNCTUATION, SYMBOL, BROKEN = range(11)
"""Kinds: LATIN to LETTER are letters; BROKEN is a control character or the sign of a lost character."""

CodePoints = npt.NDArray[np.uint32]
CharacterClasses = npt.NDArray[np.uint8]

_BY_CATEGORY = {"Z": SPACE, "L": LETTER, "M": LETTER, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL}
_SCRIPTS = (("CJK", HAN), ("LATIN", LATIN), ("HIRAGANA", KANA), ("KATAKANA", KANA), ("HANGUL", HANGUL))


def code_points(text: str) -> CodePoints:
    """(n,) code points."""
    return np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)


def character_classes(points: CodePoints) -> CharacterClasses:
    """(n,) kind of each code point."""
    if not len(points) or points.max() < 0x10000:
        return _class_table()[points]
    found = _class_table()[np.minimum(points, 0xFFFF)]
    beyond = points > 0xFFFF
    rare_han = (points >= 0x20000) & (points < 0x40000)
    return np.where(beyond, np.where(rare_han, HAN, SYMBOL), found).astype(np.uint8)


def count_classes(text: str) -> npt.NDArray[np.int64]:
    """(11,) how many characters of each kind there are."""
    return np.bincount(character_classes(code_points(text)), minlength=11)


def is_han(character: str) -> bool:
    """Is it a Chinese character?"""
    code = ord(character)
    return bool(_class_table()[code] == HAN) if code < 0x10000 else 0x20000 <= code < 0x40000


@cache
def _class_table() -> CharacterClasses:
    """(65536,) the basic plane."""
    return np.array([_character_class(chr(code)) for code in range(0x10000)], np.uint8)


def _character_class(character: str) -> int:
    category = unicodedata.category(character)
    if character in "\t\n\r\u3000":
        return SPACE
    if category in ("Cc", "Co", "Cs") or character == "\N{REPLACEMENT CHARACTER}":
        return BROKEN
    if category[0] == "L":
        name = unicodedata.name(character, "")
        return next((kind for script, kind in _SCRIPTS if name.startswith(script)), LETTER)
    return _BY_CATEGORY.get(category[0], OTHER)
