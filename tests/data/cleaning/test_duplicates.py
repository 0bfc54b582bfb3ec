"""Duplicates are found as a reference finds them, in little memory, and after a restart as before it."""

from __future__ import annotations

import random
import tracemalloc

import datasketch
import numpy as np
import pytest

from pretune.data.cleaning import exact_duplicates
from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.cleaning.fingerprints import _BASE, _MIX, NGRAM_CHARACTERS, char_ngram_hashes
from pretune.data.cleaning.near_duplicates import (
    PERMUTATIONS,
    NearDuplicates,
    choose_bands,
    shingle_hashes,
    signatures,
    similarity,
)

HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 2000)]


def families(kind: str, count: int) -> list[str]:
    """Texts, each with copies in which more and more units are others."""
    draw = random.Random(0)
    units = [f"w{n}" for n in range(3000)] if kind == "words" else HAN
    texts = []
    for _ in range(count):
        original = [draw.choice(units) for _ in range(200)]
        for changes in (0, 1, 2, 4, 8, 16):
            copy = list(original)
            for _ in range(changes):
                copy[draw.randrange(200)] = draw.choice(units)
            texts.append((" " if kind == "words" else "").join(copy) + ("." if changes == 0 else ""))
    return texts


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    first, second = set(one.tolist()), set(other.tolist())
    return len(first & second) / len(first | second)


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_signatures_estimate_similarity_as_well_as_datasketch(kind: str) -> None:
    texts = families(kind, 40)
    shingles = [shingle_hashes(text, characters=kind == "characters") for text in texts]
    ours = signatures(shingles)
    theirs = []
    for hashes in shingles:
        sketch = datasketch.MinHash(PERMUTATIONS, seed=1)
        sketch.update_batch([value.tobytes() for value in hashes])
        theirs.append(sketch)
    pairs = [(6 * n, 6 * n + k) for n in range(40) for k in range(1, 6)]
    truth = np.array([jaccard(shingles[a], shingles[b]) for a, b in pairs])
    errors = np.array([similarity(ours[a], ours[b]) for a, b in pairs]) - truth
    reference = np.array([theirs[a].jaccard(theirs[b]) for a, b in pairs]) - truth
    assert abs(errors.mean()) < 0.01
    assert errors.std() < 1.3 * reference.std()


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_decisions_agree_with_datasketch_and_with_the_truth(kind: str) -> None:
    texts = families(kind, 40)
    shingles = [shingle_hashes(text, characters=kind == "characters") for text in texts]
    found = NearDuplicates(0.8).find_duplicates(signatures(shingles))
    index = datasketch.MinHashLSH(threshold=0.8, num_perm=PERMUTATIONS, params=choose_bands(0.8))
    sketches: dict[str, datasketch.MinHash] = {}
    reference, truth, kept = [], [], []
    for number, hashes in enumerate(shingles):
        sketch = datasketch.MinHash(PERMUTATIONS, seed=1)
        sketch.update_batch([value.tobytes() for value in hashes])
        again = any(sketch.jaccard(sketches[name]) >= 0.8 for name in index.query(sketch))
        reference.append(again)
        if not again:
            sketches[str(number)] = sketch
            index.insert(str(number), sketch)
        similar = any(jaccard(hashes, shingles[other]) >= 0.8 for other in kept[-6:])
        truth.append(similar)
        if not similar:
            kept.append(number)
    # Both estimate by 128 permutations, so each errs near the threshold: about 0.035 in similarity.
    assert np.mean(np.array(found) == np.array(truth)) > 0.93
    assert np.mean(np.array(found) == np.array(reference)) > 0.9
    assert 60 < sum(found) < 200


def test_what_is_seen_does_not_depend_on_batches_or_restarts() -> None:
    rows = signatures([shingle_hashes(text, characters=False) for text in families("words", 60)])
    whole = NearDuplicates().find_duplicates(rows)
    pieces, index = [], NearDuplicates()
    for start in range(0, len(rows), 7):
        if start == 70 or start == 210:
            restarted = NearDuplicates()
            restarted.restore(index.signatures_since(0)[:20])
            restarted.restore(index.signatures_since(20))
            assert len(restarted) == len(index)
            index = restarted
        pieces += index.find_duplicates(rows[start : start + 7])
    assert pieces == whole


def test_short_texts_are_alike_only_where_they_are_equal() -> None:
    rows = signatures(
        [shingle_hashes(text, characters=False) for text in ("one two", "one two", "one three", "", "")]
    )
    assert NearDuplicates().find_duplicates(rows) == [False, True, False, False, True]


def test_a_million_documents_take_a_third_of_a_gigabyte() -> None:
    draw = np.random.default_rng(0)
    index = NearDuplicates()
    for _ in range(20):
        index.find_duplicates(draw.integers(0, 256, (1000, PERMUTATIONS), dtype=np.uint8))
    assert len(index) == 20_000
    assert index.memory / len(index) < 128 * 1.25 + 16 * 4 / 0.3 + 1


def test_exact_duplicates_are_found_in_eight_bytes_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_duplicates, "_BUFFER_SIZE", 1000)
    draw = np.random.default_rng(0)
    values = draw.integers(1, 1 << 63, 50_000).tolist()
    seen = ExactDuplicates()
    tracemalloc.start()
    assert sum(map(seen.is_duplicate_hash, values)) == 0
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sum(map(seen.is_duplicate_hash, values[::50])) == 1000
    assert len(seen) == 50_000
    assert held < 8 * 50_000 + 200_000
    again = ExactDuplicates()
    again.add_hashes(np.array(values[:100], np.uint64))
    assert [again.is_duplicate_hash(value) for value in values[99:101]] == [True, False]


def test_runs_are_hashed_as_their_definition_says() -> None:
    text = "The ship, 渡船; left Ünder 𠮷 the 1,000 bridges! " * 4
    kept = [c for c in text if c.isalnum()]
    hashes, places = char_ngram_hashes(text)
    assert "".join(text[place] for place in places.tolist()) == "".join(kept)
    expected = []
    for start in range(len(kept) - NGRAM_CHARACTERS + 1):
        value = 0
        for character in kept[start : start + NGRAM_CHARACTERS]:
            value = (value * int(_BASE) + ord(character.lower())) % (1 << 64)
        value ^= value >> 32
        value = value * int(_MIX) % (1 << 64)
        expected.append(value ^ (value >> 32))
    assert hashes.tolist() == expected
