"""A unigram language model of pieces, learnt by expectation maximisation (Kudo 2018, section 3.2).

`tokenizers` has a trainer of it, whose result depends on the order of a randomly seeded hash map and which
stops where the characters alone fill the vocabulary, as Chinese ones do. This one is deterministic, leaves
rare characters to their bytes, and holds about 25 bytes for each place where a piece may lie.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import digamma

from pretune.types import BoolArray, IntArray

FloatArray = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

MAX_WORD_CHARACTERS = (
    32  # characters: longer runs are cut, so that probabilities in a lattice stay above 1e-300
)
_COVERAGE = 0.9995  # share of the characters that get a piece of their own, as SentencePiece has it
_SEED_FACTOR = 12  # candidates a place in the vocabulary
_SHRINK = 0.7  # share of the candidates that outlives a round
_ROUNDS = 2  # of expectation maximisation before each cut
_MIN_PROBABILITY = 1e-9  # probability of a character that no best segmentation uses


@dataclass(frozen=True)
class _WordTable:
    """Distinct words laid end to end."""

    characters: tuple[str, ...]
    codes: IntArray
    """(N,) index into ``characters``."""
    word_start: IntArray
    """(N,) where the word of each place starts."""
    remaining: IntArray
    """(N,) characters from here to the end of the word."""
    counts: FloatArray
    """(N,) how often the word occurs."""


@dataclass(frozen=True)
class _Lattice:
    """Every place where a piece may lie, sorted by where it ends in its word."""

    start: Int32Array
    """(E,) nodes; a word of n characters has n + 1."""
    end: Int32Array
    piece: Int32Array
    steps: tuple[slice, ...]
    """Edges of equal end within their words, in order."""
    roots: IntArray
    """(W,) first node of each word."""
    leaves: IntArray
    counts: FloatArray
    """(W,)"""

    @property
    def nodes(self) -> int:
        return int(self.leaves[-1]) + 1


def learn_pieces(
    words: Mapping[str, int], size: int, *, max_bytes: int, min_frequency: int = 2
) -> list[tuple[str, float]]:
    """At most ``size`` pieces with their log-probabilities, the most probable first.

    Args:
        words: how often each pre-token occurs; no piece spans two.
        max_bytes: longest piece, in UTF-8.
        min_frequency: how often a piece of two characters and more occurs at least.
    """
    alphabet = _choose_alphabet(words, size)
    text = _build_word_table(words, alphabet)
    if not len(text.codes):
        return []
    pieces, start, length, piece, frequency = _find_candidates(text, max_bytes, min_frequency)
    keep = _select_seeds(pieces, frequency, len(text.characters), _SEED_FACTOR * size)
    pieces, piece = [pieces[i] for i in np.flatnonzero(keep)], _new_indices(keep)[piece]
    lattice = _build_lattice(text, start, length, piece)
    weights = frequency[keep] / frequency[keep].sum()
    single = np.array([len(p) == 1 for p in pieces])
    while True:
        for _ in range(_ROUNDS):
            expected = _expectation(lattice, weights)
            alive = single | (expected >= 0.5)
            pieces, single, expected, lattice = _prune(pieces, single, expected, lattice, alive)
            weights = _maximisation(expected)
        if len(pieces) <= size:
            break
        loss = _losses(pieces, weights, expected)
        wanted = max(size, round(len(pieces) * _SHRINK), int(single.sum()))
        order = np.lexsort((np.arange(len(pieces)), -np.where(single, np.inf, loss)))
        alive = np.zeros(len(pieces), bool)
        alive[order[:wanted]] = True
        pieces, single, expected, lattice = _prune(pieces, single, expected, lattice, alive)
        weights = _maximisation(expected)
        if wanted == int(single.sum()):
            break
    scored = sorted(zip(pieces, np.log(weights).round(6).tolist(), strict=True), key=lambda p: (-p[1], p[0]))
    return scored[:size]


def _choose_alphabet(words: Mapping[str, int], size: int) -> list[str]:
    """The characters that get a piece, the most frequent first; a third of the vocabulary at most."""
    found: dict[str, int] = {}
    for word, count in words.items():
        for character in word:
            found[character] = found.get(character, 0) + count
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    covered = np.cumsum([count for _, count in ranked])
    total = covered[-1] if len(covered) else 0
    enough = int(np.searchsorted(covered, _COVERAGE * total)) + 1
    return [character for character, _ in ranked[: max(min(enough, size // 3), 1)]]


def _build_word_table(words: Mapping[str, int], alphabet: Sequence[str]) -> _WordTable:
    """The words, cut where a character has no piece: its bytes join nothing."""
    known = re.compile(f"[{re.escape(''.join(alphabet))}]{{1,{MAX_WORD_CHARACTERS}}}") if alphabet else None
    counts: dict[str, int] = {}
    for word, count in words.items():
        for part in known.findall(word) if known else ():
            counts[part] = counts.get(part, 0) + count
    parts = sorted(counts)
    lengths = np.array([len(part) for part in parts], np.int64)
    codes = np.frombuffer("".join(parts).encode("utf-32-le"), np.uint32)
    characters, index = np.unique(codes, return_inverse=True)
    ends = np.cumsum(lengths)
    first = np.repeat(ends - lengths, lengths)
    left = np.repeat(ends, lengths) - np.arange(len(codes))
    repeated = np.repeat(np.array([counts[part] for part in parts], np.float64), lengths)
    return _WordTable(tuple(map(chr, characters.tolist())), index.astype(np.int64), first, left, repeated)


def _find_candidates(
    text: _WordTable, max_bytes: int, min_frequency: int
) -> tuple[list[str], IntArray, IntArray, IntArray, FloatArray]:
    """(pieces, start, length and piece of every occurrence, frequencies), the shortest pieces first.

    A run of n + 1 characters is no more frequent than the runs of n in it, so each round looks only at places
    where both of them are frequent.
    """
    many = len(text.characters)
    widths = np.array([len(c.encode()) for c in text.characters], np.int64)
    ends = np.concatenate([[0], np.cumsum(widths[text.codes])])
    pieces, frequencies = list(text.characters), [np.bincount(text.codes, text.counts, many)]
    here, current, base = np.arange(len(text.codes)), text.codes, 0
    starts, lengths, ids = [here], [np.ones(len(here), np.int64)], [current]
    length = 1
    while len(here):
        there = np.full(len(text.codes) + 1, False)
        there[here] = True
        longer = (text.remaining[here] > length) & there[np.minimum(here + 1, len(text.codes))]
        longer[longer] = ends[here[longer] + length + 1] - ends[here[longer]] <= max_bytes
        here, current = here[longer], current[longer]
        length += 1
        keys = (current - base) * many + text.codes[np.minimum(here + length - 1, len(text.codes) - 1)]
        found, at, inverse = np.unique(keys, return_index=True, return_inverse=True)
        frequency = np.bincount(inverse, text.counts[here], len(found))
        keep = frequency >= min_frequency
        base = len(pieces)
        places = keep[inverse]
        current = base + _new_indices(keep)[inverse][places]
        examples = here[at][keep]
        pieces += ["".join(text.characters[c] for c in text.codes[i : i + length]) for i in examples.tolist()]
        here = here[places]
        starts.append(here)
        lengths.append(np.full(len(here), length, np.int64))
        ids.append(current)
        frequencies.append(frequency[keep])
    return (
        pieces,
        np.concatenate(starts),
        np.concatenate(lengths),
        np.concatenate(ids),
        np.concatenate(frequencies),
    )


def _select_seeds(
    pieces: Sequence[str], frequency: FloatArray, characters: int, max_pieces: int
) -> BoolArray:
    """The characters, and the longer pieces that cover most text."""
    covered = frequency * np.array([len(piece) for piece in pieces])
    covered[:characters] = np.inf
    keep = np.zeros(len(pieces), bool)
    keep[np.lexsort((np.arange(len(pieces)), -covered))[: max(max_pieces, characters)]] = True
    return keep


def _new_indices(keep: BoolArray) -> IntArray:
    """(n,) new number of each kept item, -1 for the others."""
    return np.where(keep, np.cumsum(keep) - 1, -1)


def _build_lattice(text: _WordTable, start: IntArray, length: IntArray, piece: IntArray) -> _Lattice:
    there = piece >= 0
    start, length, piece = start[there], length[there], piece[there]
    head = text.word_start == np.arange(len(text.codes))
    word = np.cumsum(head) - 1
    relative = start - text.word_start[start] + length
    first = start + word[start]  # a word has one node more than it has characters
    last = first + length
    order = np.lexsort((start, last, relative))
    bounds = np.searchsorted(relative[order], np.arange(1, MAX_WORD_CHARACTERS + 2))
    steps = tuple(slice(a, b) for a, b in pairwise(bounds.tolist()) if b > a)
    heads = np.flatnonzero(head)
    roots = heads + np.arange(len(heads))
    leaves = roots + text.remaining[heads]
    return _Lattice(
        first[order].astype(np.int32), last[order].astype(np.int32), piece[order].astype(np.int32),
        steps, roots, leaves, text.counts[heads],
    )  # fmt: skip


def _node_starts(end: Int32Array) -> IntArray:
    """Where a new node begins among edges sorted by their end."""
    return np.flatnonzero(np.concatenate([[True], end[1:] != end[:-1]]))


def _expectation(lattice: _Lattice, weights: FloatArray) -> FloatArray:
    """(pieces,) how often each is expected, by forward and backward sums over all segmentations."""
    forward = np.zeros(lattice.nodes)
    forward[lattice.roots] = 1.0
    for step in lattice.steps:
        end = lattice.end[step]
        groups = _node_starts(end)
        forward[end[groups]] = np.add.reduceat(
            forward[lattice.start[step]] * weights[lattice.piece[step]], groups
        )
    backward = np.zeros(lattice.nodes)
    backward[lattice.leaves] = lattice.counts / forward[lattice.leaves]
    for step in reversed(lattice.steps):
        np.add.at(backward, lattice.start[step], weights[lattice.piece[step]] * backward[lattice.end[step]])
    expected = np.zeros(len(weights))
    for step in lattice.steps:
        piece = lattice.piece[step]
        share = forward[lattice.start[step]] * weights[piece] * backward[lattice.end[step]]
        expected += np.bincount(piece, share, len(weights))
    return expected


def _maximisation(expected: FloatArray) -> FloatArray:
    """Probabilities under a sparse prior: the digamma takes most from what is rare."""
    weights: FloatArray = np.exp(digamma(np.maximum(expected, 1e-2)) - digamma(expected.sum()))
    return np.maximum(weights, _MIN_PROBABILITY)


def _prune(
    pieces: list[str], single: BoolArray, expected: FloatArray, lattice: _Lattice, keep: BoolArray
) -> tuple[list[str], BoolArray, FloatArray, _Lattice]:
    """Everything without the pieces that are not alive."""
    if keep.all():
        return pieces, single, expected, lattice
    number = _new_indices(keep).astype(np.int32)
    there = keep[lattice.piece]
    kept = np.concatenate([[0], np.cumsum(there)])
    steps = tuple(slice(int(kept[s.start]), int(kept[s.stop])) for s in lattice.steps)
    smaller = _Lattice(
        lattice.start[there], lattice.end[there], number[lattice.piece[there]], steps,
        lattice.roots, lattice.leaves, lattice.counts,
    )  # fmt: skip
    return [pieces[i] for i in np.flatnonzero(keep)], single[keep], expected[keep], smaller


def _losses(pieces: Sequence[str], weights: FloatArray, expected: FloatArray) -> FloatArray:
    """(pieces,) nats that the text loses where a piece is written by the best of the others."""
    score = dict(zip(pieces, np.log(weights).tolist(), strict=True))
    loss = np.zeros(len(pieces))
    for i, piece in enumerate(pieces):
        best = [0.0] + [-np.inf] * len(piece)
        for end in range(1, len(piece) + 1):
            for start in range(1 if end == len(piece) else 0, end):
                part = score.get(piece[start:end])
                if part is not None and best[start] + part > best[end]:
                    best[end] = best[start] + part
        if len(piece) > 1:
            loss[i] = expected[i] * (score[piece] - best[-1])
    return loss
