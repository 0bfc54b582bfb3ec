"""Widths and scripts on request: full to half width, traditional to simplified and back."""

from __future__ import annotations

import re
from functools import cache

import opencc

FULL_LETTERS = {
    code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))
}
"""Full-width digits and letters to ASCII; Chinese punctuation is not among them."""
_FULL = re.compile("[０-９Ａ-Ｚａ-ｚ]+")
_HAN = "[㐀-䶿一-鿿豈-﫿]"
_FULL_MARKS = str.maketrans(",;:?!()", "，；：？！（）")
_ASCII_MARK = re.compile(
    rf"(?<={_HAN})[,;:?!](?![,;:?!])|(?<={_HAN})\(|\((?={_HAN})|(?<={_HAN})\)|\)(?={_HAN})"
)
_ASCII_STOP = re.compile(rf"(?<={_HAN})\.(?=\s|$|{_HAN})")


def half_width(text: str) -> str:
    """Full-width ASCII letters and digits as ASCII; punctuation, the ideographic space included, stays."""
    return _FULL.sub(lambda match: match[0].translate(FULL_LETTERS), text)


def chinese_width(text: str) -> str:
    """As :func:`half_width`, and ASCII punctuation beside Chinese characters as Chinese punctuation."""
    text = _ASCII_MARK.sub(lambda match: match[0].translate(_FULL_MARKS), half_width(text))
    return _ASCII_STOP.sub("。", text)


def simplified(text: str) -> str:
    """Traditional characters as simplified ones, by phrases (OpenCC's t2s)."""
    return text if text.isascii() else str(_converter("t2s").convert(text))


def traditional(text: str) -> str:
    """Simplified characters as traditional ones, by phrases (OpenCC's s2t)."""
    return text if text.isascii() else str(_converter("s2t").convert(text))


@cache
def _converter(name: str) -> opencc.OpenCC:
    return opencc.OpenCC(name)


WIDTHS = {"half": half_width, "chinese": chinese_width}
SCRIPTS = {"simplified": simplified, "traditional": traditional}
