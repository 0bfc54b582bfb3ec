"""Where words and sentences start, in tokens, for English and Chinese."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt
import rjieba

from pretune.text.tokenizer import replace_surrogates
from pretune.types import BoolArray, IntArray

WORD_START, SENTENCE_START = 1, 2

_SPACE, _LETTER, _HAN, _OTHER = range(4)
_CLASS_BITS, _JOINER_BIT, _TERMINATOR_BIT = 3, 4, 8  # bits
_CLOSERS = "\"'”’」』）)\\]】》〉}"
_SENTENCE_END = re.compile(
    rf"[。！？…｡]+[{_CLOSERS}]*"
    rf"|(?P<stop>[.!?]+)[{_CLOSERS}]*(?=\s|$)"
    # Chinese typed with ASCII marks has no space after them.
    rf"|[!?]+[{_CLOSERS}]*(?=[^\x00-\x7f])"
    # A line ends a sentence unless the next goes on in lower case, as in text wrapped by hand.
    r"|\n(?=[^\S\n]*\n)|\n(?![^\S\n]*[a-z])"
)
_TITLE_ABBREVIATIONS = "mr mrs ms dr prof rev gen col capt lt sgt hon messrs mme e.g i.e vs cf"
_NUMBER_ABBREVIATIONS = (
    "no nos vol fig figs eq sec ch p pp ed art jan feb mar apr jun jul aug sep sept oct nov dec"
)
_TITLES, _NUMBER_PREFIXES = frozenset(_TITLE_ABBREVIATIONS.split()), frozenset(_NUMBER_ABBREVIATIONS.split())
_LAST_WORD = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*$")
_NEXT_CHARACTER = re.compile(r"\s*[\"'“‘(\[]?(\S?)")


def find_word_starts(text: str, offsets: IntArray) -> npt.NDArray[np.uint8]:
    """(T,) flags of the tokens of ``text``: bit 1 where a word starts, bit 2 where a sentence starts.

    Words are runs of letters and digits, Chinese words by `rjieba`, single punctuation marks, and runs of
    white space that no token joins to a word. A token belongs to the word of its first visible character: one
    that spans words joins them. Of the tokens that share a character only the first can start anything.

    Args:
        text: what was encoded.
        offsets: (T, 2) characters [start, end) of each token, in order.
    """
    if not len(offsets):
        return np.zeros(0, np.uint8)
    text = replace_surrogates(text)
    size = len(text)
    if not size:
        return np.zeros(len(offsets), np.uint8)
    kinds, enders = _character_classes(text)
    visible = kinds != _SPACE
    begin, end = offsets[:, 0].clip(0, size - 1), offsets[:, 1].clip(0, size)
    following = np.where(visible, np.arange(size), size)
    following = np.minimum.accumulate(following[::-1])[::-1]
    first = np.where(following[begin] < end, following[begin], begin)
    word = _word_start_mask(text, kinds)[first]
    passed = np.concatenate([[0], np.cumsum(_sentence_start_mask(text, enders, following))])
    sentence = passed[np.maximum(end, begin)] > passed[begin]
    fresh = np.ones(len(offsets), bool)
    fresh[1:] = begin[1:] != begin[:-1]
    flags: npt.NDArray[np.uint8] = ((word * WORD_START + sentence * SENTENCE_START) * fresh).astype(np.uint8)
    return flags


@cache
def _class_table() -> npt.NDArray[np.uint8]:
    """(65537,) kind of each character of the basic plane and what mark it is; the last is all others."""
    kinds = np.array([*(_character_class(chr(code)) for code in range(0x10000)), _OTHER], np.uint8)
    kinds[[ord(c) for c in "'’.,"]] |= _JOINER_BIT
    kinds[[ord(c) for c in "。！？…｡.!?\n"]] |= _TERMINATOR_BIT
    return kinds


def _character_class(character: str) -> int:
    if character.isspace():
        return _SPACE
    if "㐀" <= character <= "䶿" or "一" <= character <= "鿿" or "豈" <= character <= "﫿":
        return _HAN
    if character.isalnum() or unicodedata.category(character)[0] == "M" or character == "_":
        return _LETTER
    return _OTHER


def _character_classes(text: str) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """(kind of each character, the characters at which a sentence's end may begin)."""
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    found: npt.NDArray[np.uint8] = _class_table()[np.minimum(codes, 0x10000)]
    if codes.max() > 0xFFFF:  # the planes above hold rare Han, and signs that stand for themselves
        found[(codes >= 0x20000) & (codes < 0x40000)] = _HAN
    kinds = found & np.uint8(_CLASS_BITS)
    # An apostrophe, a full stop or a comma inside a word or number is a part of it: don't, 3.14, 1,000.
    at = np.flatnonzero(found[1:-1] & _JOINER_BIT) + 1
    joins = (kinds[at - 1] == _LETTER) & (kinds[at + 1] == _LETTER)
    decimal = (codes[at] != ord("'")) & (codes[at] != ord("’"))
    joins &= ~decimal | (_is_digit(codes[at - 1]) & _is_digit(codes[at + 1]))
    kinds[at[joins]] = _LETTER
    return kinds, np.flatnonzero(found & _TERMINATOR_BIT).tolist()


def _is_digit(codes: npt.NDArray[np.uint32]) -> BoolArray:
    return (codes >= ord("0")) & (codes <= ord("9"))


def _word_start_mask(text: str, classes: npt.NDArray[np.uint8]) -> BoolArray:
    word = np.ones(len(text), bool)
    word[1:] = (classes[1:] != classes[:-1]) | (classes[1:] == _OTHER)
    han = classes == _HAN
    if han.any():
        words = rjieba.cut(text)
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        assert lengths.sum() == len(text), "rjieba keeps every character"
        cuts = np.zeros(len(text), bool)
        cuts[np.cumsum(lengths) - lengths] = True
        word = np.where(han, cuts, word)
    return word


def _sentence_start_mask(text: str, terminators: list[int], following: IntArray) -> BoolArray:
    found = np.zeros(len(text), bool)
    ends, passed = [], 0
    for at in terminators:  # in place of finditer, which tries every character
        match = _SENTENCE_END.match(text, at) if at >= passed else None
        if match:
            passed = match.end()
            if not match["stop"] or _ends_sentence(text, match):
                ends.append(passed)
    after = np.array([0, *ends], np.int64)
    after = following[after[after < len(text)]]
    found[after[after < len(text)]] = True
    return found


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    """Do these ASCII marks end a sentence?"""
    following = _NEXT_CHARACTER.match(text, match.end())
    if following and following[1].islower():
        return False
    if match["stop"] != ".":
        return True
    before = _LAST_WORD.search(text[max(0, match.start() - 16) : match.start()])
    if not before:
        return True
    word = before[0]
    if word.lower() in _TITLES or (len(word) == 1 and word.isupper() and word != "I"):
        return False  # a title before a name, an initial
    return not (word.lower() in _NUMBER_PREFIXES and following and following[1].isdigit())


def count_words(text: str) -> int:
    """How many words of letters, digits or Chinese characters ``text`` has; punctuation is none."""
    text = replace_surrogates(text)
    if not text:
        return 0
    kinds, _ = _character_classes(text)
    return int((_word_start_mask(text, kinds) & ((kinds == _LETTER) | (kinds == _HAN))).sum())


def is_mostly_chinese(text: str) -> bool:
    """Is at least a third of the letters of ``text`` Chinese characters?"""
    if text.isascii():
        return False
    kinds, _ = _character_classes(replace_surrogates(text))
    han = int((kinds == _HAN).sum())
    return han > 0 and 3 * han >= han + int((kinds == _LETTER).sum())
