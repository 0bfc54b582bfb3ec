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
_TO_CHINESE_PUNCTUATION = str.maketrans(",;:?!()", "，；：？！（）")
_ASCII_PUNCTUATION = re.compile(
    rf"(?<={_HAN})[,;:?!](?![,;:?!])|(?<={_HAN})\(|\((?={_HAN})|(?<={_HAN})\)|\)(?={_HAN})"
)
_ASCII_STOP = re.compile(rf"(?<={_HAN})\.(?=\s|$|{_HAN})")


def to_half_width(text: str) -> str:
    """Full-width ASCII letters and digits as ASCII; punctuation, the ideographic space included, stays."""
    return _FULL.sub(lambda match: match[0].translate(FULL_LETTERS), text)


def to_chinese_width(text: str) -> str:
    """As :func:`to_half_width`, and ASCII punctuation beside Chinese characters as Chinese punctuation."""
    text = _ASCII_PUNCTUATION.sub(
        lambda match: match[0].translate(_TO_CHINESE_PUNCTUATION), to_half_width(text)
    )
    return _ASCII_STOP.sub("。", text)


def to_simplified(text: str) -> str:
    """Traditional characters as simplified ones, by phrases (OpenCC's t2s)."""
    return text if text.isascii() else str(_converter("t2s").convert(text))


def to_traditional(text: str) -> str:
    """Simplified characters as traditional ones, by phrases (OpenCC's s2t)."""
    return text if text.isascii() else str(_converter("s2t").convert(text))


@cache
def _converter(name: str) -> opencc.OpenCC:
    return opencc.OpenCC(name)


WIDTHS = {"half": to_half_width, "chinese": to_chinese_width}
SCRIPTS = {"simplified": to_simplified, "traditional": to_traditional}
