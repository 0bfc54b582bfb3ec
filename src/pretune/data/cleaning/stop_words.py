"""Takes stop words out on request, for models of topics rather than of language."""

from __future__ import annotations

import re
from functools import cache

import rjieba
import stopwordsiso

from pretune.data.cleaning.characters import is_han

_HAN_RUN = re.compile(r"[㐀-䶿一-鿿豈-﫿]+")
_LATIN_WORD = re.compile(r"(?<![A-Za-z0-9_À-ɏ])[A-Za-z]+(?:['’][A-Za-z]+)*(?![A-Za-z0-9_À-ɏ])[ \t]*")


def remove_stop_words(text: str) -> str:
    """The text without the English and Chinese words of stopwords-iso; marks, numbers and line ends stay.

    Chinese words are rjieba's. A single character that is a word on the list goes only where it stands as a
    word of its own: 目的 keeps its 的.
    """
    text = _LATIN_WORD.sub(_remove_english, text)
    text = _HAN_RUN.sub(_remove_chinese, text)
    return re.sub(r"[ \t]+(?=[\n,.;:!?])", "", text)


def _remove_english(match: re.Match[str]) -> str:
    return "" if match[0].strip().lower().replace("’", "'") in _stop_words("en") else match[0]


def _remove_chinese(match: re.Match[str]) -> str:
    listed = _stop_words("zh")
    return "".join(word for word in rjieba.cut(match[0]) if word not in listed)


@cache
def _stop_words(language: str) -> frozenset[str]:
    words = stopwordsiso.stopwords(language)
    return frozenset(word for word in words if language != "zh" or all(map(is_han, word)))
