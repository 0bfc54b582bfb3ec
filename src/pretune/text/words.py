"""Words and the text that they make: joined, split, and told apart in the tokens of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pretune.types import IntArray

_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3400-\u4dbf\u4e00-\u9fff]+|[^\w\s]")


def split_words(text: str) -> list[str]:
    """The words of a text; each Chinese character is one, as is each punctuation mark."""
    return _WORD.findall(text)


def join_words(words: Sequence[str]) -> tuple[str, IntArray]:
    """The words as one text, a space between two that are not Chinese, and where each begins: (words,)."""
    text, starts = "", []
    for word in words:
        if text and not (_CHINESE.match(word) and _CHINESE.match(text[-1])):
            text += " "
        starts.append(len(text))
        text += word
    return text, np.array(starts, np.int64)


def words_of_tokens(starts: IntArray, offsets: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """The word that each token is of, (T,), and whether the token is the first of its word, (T,).

    A token belongs to the word of its last character: the first may be the space before it.

    Args:
        starts: (words,) first character of each word.
        offsets: (T, 2) characters [start, end) of each token.
    """
    last = np.maximum(offsets[:, 1] - 1, offsets[:, 0])
    words = np.searchsorted(starts, last, side="right") - 1  # (T,)
    return words, np.append(True, words[1:] != words[:-1])[: len(words)]
