"""More tokens for a tokenizer that is there: those that its training would have made next on another text."""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from pretune.errors import ConfigError, DataError, UnsupportedError
from pretune.text.sample import sample_texts
from pretune.text.tokenizer import Tokenizer

_BYTE_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
SAMPLE_CHARACTERS = 20_000_000
"""Characters that are looked at; of a larger text a sample."""


Tokenizations = dict[str, list[Any]]
"""Word -> the tokens with which the old tokenizer writes it."""


@dataclass(frozen=True, slots=True)
class ExtendedTokenizer:
    """A tokenizer with more tokens; the ids of the old ones are what they were."""

    tokenizer: Tokenizer
    pieces: dict[int, tuple[int, ...]]
    """New id -> the ids with which the old tokenizer wrote it, in the order of their making."""


def extend_tokenizer(
    tokenizer: Tokenizer, texts: Iterable[str], num_tokens: int, *, max_token_length: int = 16
) -> ExtendedTokenizer:
    """The tokenizer with up to ``num_tokens`` more tokens for ``texts``.

    BPE goes on learning merges where it stopped (Sennrich et al. 2016): they stand behind the old ones, so
    each word is first written as before. WordPiece takes whole words, those first that save the most tokens;
    a word that it could not write at all counts double.

    Args:
        max_token_length: longest new token, in bytes; 16 is five Chinese characters.

    Raises:
        UnsupportedError: Unigram (its scores hold together; train it anew), or no words to count.
        DataError: there is no text.
    """
    if num_tokens < 1:
        raise ConfigError(f"tokens = {num_tokens}: must be positive")
    description = tokenizer.to_dict()
    kind = description["model"]["type"]
    if kind not in _EXTENDERS:
        raise UnsupportedError(
            f"a {kind} tokenizer cannot be extended, as its scores hold for all pieces together; "
            f"train one anew, or extend one of: {', '.join(_EXTENDERS)}"
        )
    sample = sample_texts(texts, SAMPLE_CHARACTERS)
    if not sample:
        raise DataError("no text to find new tokens in")
    backend = tokenizers.Tokenizer.from_str(json.dumps(description))
    words = _count_words(backend, sample)
    written = {word: backend.model.tokenize(word) for word in words}
    new_tokens = _EXTENDERS[kind](
        description["model"], words, written, num_tokens, max_token_length, tokenizer.vocabulary_size
    )
    extended_backend = tokenizers.Tokenizer.from_str(json.dumps(description))
    pieces = {id: tuple(token.id for token in backend.model.tokenize(new)) for id, new in new_tokens.items()}
    return ExtendedTokenizer(tokenizer.with_backend(extended_backend), pieces)


def _count_words(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> Counter[str]:
    """The words that the tokenizer cuts text into before it looks for pieces, as its model sees them."""
    if backend.pre_tokenizer is None:
        raise UnsupportedError(
            "the tokenizer cuts text into no words before it looks for pieces; no word can be counted"
        )
    found: Counter[str] = Counter()
    for text in texts:
        plain = backend.normalizer.normalize_str(text) if backend.normalizer else text
        found.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain))
    return found


def _extend_bpe(
    model: dict[str, Any],
    words: Counter[str],
    tokenizations: Tokenizations,
    num_tokens: int,
    max_token_length: int,
    first_id: int,
) -> dict[int, str]:
    """Append the next merges to ``model``; the tokens that they make."""
    plain = not model["merges"] or isinstance(model["merges"][0], str)
    vocabulary = model["vocab"]
    names = {id: name for name, id in vocabulary.items()}
    made: dict[int, str] = {}
    pairs = _PairCounts(
        [([token.id for token in tokens], words[word]) for word, tokens in tokenizations.items()]
    )
    while len(made) < num_tokens and (pair := pairs.pop_most_frequent()) is not None:
        a, b = (names[id] for id in pair)
        if a + b in vocabulary or _byte_length(a + b) > max_token_length:
            continue
        id = first_id + len(made)
        model["merges"].append(f"{a} {b}" if plain else [a, b])
        names[id] = made[id] = a + b
        vocabulary[a + b] = id
        pairs.merge(pair, id)
    return made


def _byte_length(token: str) -> int:
    """Bytes of text that a token stands for, whether it is written in the byte alphabet or as it is."""
    return len(token) if _BYTE_ALPHABET.issuperset(token) else len(token.encode())


class _PairCounts:
    """How often each pair of neighbours occurs, kept up while pairs are merged."""

    def __init__(self, words: Iterable[tuple[list[int], int]]) -> None:
        self.words = [(ids, count) for ids, count in words if len(ids) > 1]
        self.counts: Counter[tuple[int, int]] = Counter()
        self.words_of_pair: dict[tuple[int, int], set[int]] = defaultdict(set)
        for number in range(len(self.words)):
            self._count(number, 1)
        self.heap = [(-count, pair) for pair, count in self.counts.items()]
        heapq.heapify(self.heap)

    def pop_most_frequent(self) -> tuple[int, int] | None:
        """The most frequent pair, taken out; of equals the one of smaller ids, as `tokenizers` has it."""
        while self.heap:
            count, pair = heapq.heappop(self.heap)
            if -count == self.counts[pair]:  # or it was counted anew since
                return pair if -count > 1 else None
        return None

    def merge(self, pair: tuple[int, int], new: int) -> None:
        """Write the two as ``new`` wherever they meet."""
        changed: set[tuple[int, int]] = set()
        for number in sorted(self.words_of_pair[pair]):
            changed |= self._count(number, -1)
            ids = self.words[number][0]
            at = 0
            while at < len(ids) - 1:
                if (ids[at], ids[at + 1]) == pair:
                    ids[at : at + 2] = [new]
                at += 1
            changed |= self._count(number, 1)
        for other in changed:
            if self.counts[other] > 0:
                heapq.heappush(self.heap, (-self.counts[other], other))

    def _count(self, number: int, sign: int) -> set[tuple[int, int]]:
        """Count the pairs of a word in, or out; which they are."""
        ids, times = self.words[number]
        found = Counter(pairwise(ids))
        for pair, often in found.items():
            self.counts[pair] += sign * times * often
            if sign > 0:
                self.words_of_pair[pair].add(number)
            else:
                self.words_of_pair[pair].discard(number)
        return set(found)


def _extend_wordpiece(
    model: dict[str, Any],
    words: Counter[str],
    tokenizations: Tokenizations,
    num_tokens: int,
    max_token_length: int,
    first_id: int,
) -> dict[int, str]:
    """Put the words that save the most tokens into ``model``."""
    vocabulary, unknown = model["vocab"], model["unk_token"]
    saved = {}
    for word, count in words.items():
        pieces = [token.value for token in tokenizations[word]]
        if count > 1 and word not in vocabulary and len(word.encode()) <= max_token_length:
            saved[word] = count * (2 if pieces == [unknown] else len(pieces) - 1)
    best = sorted(saved, key=lambda word: (-saved[word], word))[:num_tokens]
    made = dict(enumerate(best, first_id))
    vocabulary |= {word: id for id, word in made.items()}
    return made


_EXTENDERS = {"BPE": _extend_bpe, "WordPiece": _extend_wordpiece}
