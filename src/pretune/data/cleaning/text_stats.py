"""What the quality rules look at: a document's lines, units and the n-grams that it repeats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pretune.data.cleaning import characters as c
from pretune.types import IntArray

_HAS_LETTER = re.compile(r"[^\W\d_]")
_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_FUNCTION_CHARACTERS = frozenset("的了是在不和有这我也就都而之其以为與與這為")
_BULLETS = tuple("•-*●·‣▪■◆○◦※–")
_ELLIPSES = ("...", "…")
_LINE_TERMINATORS = tuple(".!?\"'”’。！？…；;：:」』）)》")
_SENTENCE = re.compile(r"[.!?](?=[\s\"'”’)\]]|$)|[。！？…]+")
_PLACEHOLDER = re.compile("lorem ipsum|此处省略", re.IGNORECASE)
_PARAGRAPH = re.compile(r"\n\s*\n")
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class TextStats:
    """A text measured on demand: in words, or in characters where its language has no spaces."""

    text: str
    characters: bool
    """Are its units characters?"""
    min_ngram: int = 2
    """The shortest n-gram that is asked about."""

    @cached_property
    def class_counts(self) -> IntArray:
        """(11,) how many characters of each kind."""
        return c.count_classes(self.text)

    @cached_property
    def words(self) -> list[str]:
        """What stands between spaces."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines with something on them."""
        return [stripped for line in self.text.split("\n") if (stripped := line.strip())]

    @cached_property
    def num_visible(self) -> int:
        """Characters that are no white space."""
        return max(1, int(self.class_counts.sum() - self.class_counts[c.SPACE]))

    @cached_property
    def num_units(self) -> int:
        """Words; or Han characters and their like."""
        if not self.characters:
            return len(self.words)
        return int(self.class_counts[[c.HAN, c.KANA, c.LETTER]].sum())

    @cached_property
    def letter_fraction(self) -> float:
        return float(self.class_counts[c.LATIN : c.DIGIT].sum() / self.num_visible)

    @cached_property
    def broken_fraction(self) -> float:
        return (int(self.class_counts[c.BROKEN]) + 3 * self.text.count("锟斤拷")) / self.num_visible

    @cached_property
    def num_placeholders(self) -> int:
        return len(_PLACEHOLDER.findall(self.text))

    @cached_property
    def num_curly_brackets(self) -> int:
        return self.text.count("{")

    @cached_property
    def num_sentences(self) -> int:
        return len(_SENTENCE.findall(self.text))

    @cached_property
    def mean_word_length(self) -> float:
        return sum(map(len, self.words)) / max(1, len(self.words))

    @cached_property
    def alphabetic_fraction(self) -> float:
        """Share of words with a letter, or of visible characters that are Han."""
        if self.characters:
            return float(self.class_counts[[c.HAN, c.KANA, c.LETTER]].sum() / self.num_visible)
        return sum(bool(_HAS_LETTER.search(word)) for word in self.words) / max(1, len(self.words))

    @cached_property
    def num_stop_words(self) -> int:
        if self.characters:
            return len(_FUNCTION_CHARACTERS.intersection(self.text))
        return len(_STOP_WORDS.intersection(map(str.lower, self.words)))

    @cached_property
    def symbol_ratio(self) -> float:
        text = self.text
        ellipses = text.count("...") + text.count("…") - text.count("……")
        return (text.count("#") + ellipses) / max(1, self.num_units)

    @cached_property
    def bullet_line_fraction(self) -> float:
        return self._line_fraction(line.startswith(_BULLETS) for line in self.lines)

    @cached_property
    def ellipsis_line_fraction(self) -> float:
        return self._line_fraction(line.endswith(_ELLIPSES) for line in self.lines)

    @cached_property
    def terminated_line_fraction(self) -> float:
        return self._line_fraction(line.endswith(_LINE_TERMINATORS) for line in self.lines)

    @cached_property
    def short_line_fraction(self) -> float:
        short = 10 if self.characters else 30
        return self._line_fraction(len(line) < short for line in self.lines)

    @cached_property
    def duplicate_line_fractions(self) -> tuple[float, float]:
        return duplicate_fractions(self.lines)

    @cached_property
    def duplicate_paragraph_fractions(self) -> tuple[float, float]:
        parts = (part.strip() for part in _PARAGRAPH.split(self.text))
        return duplicate_fractions([part for part in parts if part])

    @cached_property
    def ngram_fractions(self) -> dict[int, tuple[float, float]]:
        """For each n up to 10: share of the characters in the commonest n-gram, and in repeated ones."""
        if self._has_no_repeated_bigram():
            return dict.fromkeys(range(2, 11), (0.0, 0.0))
        if self.characters:
            points = c.code_points(self.text)
            points = points[c.character_classes(points) != c.SPACE]
            hashes, lengths = points.astype(np.uint64), np.ones(len(points), np.int64)
        else:
            hashes = np.fromiter(map(hash, self.words), np.int64, len(self.words)).view(np.uint64)
            lengths = np.fromiter(map(len, self.words), np.int64, len(self.words))
        return repeated_ngram_fractions(hashes, lengths, 2 if self.characters else 1, self.min_ngram)

    def _has_no_repeated_bigram(self) -> bool:
        """Is this a short text in which no 2-gram comes twice? Then there is nothing to count."""
        if self.characters:
            joined = "".join(self.words)
            grams: Sequence[object] = (
                [joined[i : i + 4] for i in range(len(joined) - 3)] if len(joined) < 400 else ""
            )
        else:
            grams = [*pairwise(self.words)] if len(self.words) < 100 else ()
        return bool(grams) and len(set(grams)) == len(grams)

    def _line_fraction(self, flags: object) -> float:
        return sum(flags) / max(1, len(self.lines))  # type: ignore[call-overload, no-any-return]


def duplicate_fractions(segments: Sequence[str]) -> tuple[float, float]:
    """Share of the parts that stood there before, and share of the characters in them."""
    counts = Counter(segments)
    if len(counts) == len(segments):
        return 0.0, 0.0
    again = sum(len(part) * (count - 1) for part, count in counts.items() if count > 1)
    return 1 - len(counts) / len(segments), again / max(1, sum(map(len, segments)))


def repeated_ngram_fractions(
    hashes: npt.NDArray[np.uint64], lengths: IntArray, units_per_word: int, min_ngram: int = 2
) -> dict[int, tuple[float, float]]:
    """For n from ``min_ngram`` to 10: shares of the characters in the commonest n-gram, and in repeated ones.

    The commonest counts only where it comes twice; of equally common ones it is the longest. Of a repeated
    one all but its first occurrence counts, and a character in several only once. An n-gram repeats only
    where the shorter one before it does, so that each pass looks at fewer places.

    Args:
        hashes: (units,) a number for each unit.
        lengths: (units,) characters of each unit.
        units_per_word: units that stand for one word.
        min_ngram: the shortest n-gram that is asked about.
    """
    result = dict.fromkeys(range(min_ngram, 11), (0.0, 0.0))
    total = int(lengths.sum())
    ends = np.concatenate([[0], np.cumsum(lengths)])
    places, keys, done = np.arange(len(hashes)), hashes, 1
    for n in result:
        size = n * units_per_word
        keep = places + size <= len(hashes)
        places, keys = places[keep], keys[keep]
        for offset in range(done, size):
            keys = keys * _BASE + hashes[places + offset]
        done = size
        places, keys, heads = _group_repeated(places, keys)
        if not len(heads):
            break
        counts = np.diff(np.append(heads, len(places)))
        firsts = np.minimum.reduceat(places, heads)
        widths = np.where(counts == counts.max(), ends[firsts + size] - ends[firsts], 0)
        most = heads[int(widths.argmax())]
        top = _count_covered_characters(places[most : most + int(counts.max())], size, ends)
        again = places[places != np.repeat(firsts, counts)]
        result[n] = (top / total, _count_covered_characters(again, size, ends) / total)
    return result


def _group_repeated(
    positions: IntArray, keys: npt.NDArray[np.uint64]
) -> tuple[IntArray, npt.NDArray[np.uint64], IntArray]:
    """The places whose key comes several times, with their keys, group by group; and where groups begin."""
    if len(keys) < 2:
        return positions[:0], keys[:0], np.zeros(0, np.int64)
    order = np.argsort(keys)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    kept = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    order, ordered = order[kept], ordered[kept]
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, bool)
    return positions[order], ordered, np.flatnonzero(fresh)


def _count_covered_characters(positions: IntArray, size: int, ends: IntArray) -> int:
    """Characters in the stretches of ``size`` units that begin at the places, each once."""
    begins = np.sort(positions)
    stops = begins + size
    stops[:-1] = np.minimum(stops[:-1], begins[1:])
    return int((ends[stops] - ends[begins]).sum())
