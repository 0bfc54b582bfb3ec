"""A sample of texts that depends neither on their order nor on chance."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator

from pretune.text.tokenizer import replace_surrogates

_PIECE_CHARACTERS = (
    4096  # characters: small beside any sample, so that one long book cannot crowd out the rest
)


def sample_texts(texts: Iterable[str], max_characters: int) -> list[str]:
    """The pieces with the smallest hashes, as many as ``max_characters`` hold, in the order of hashes."""
    heap: list[tuple[int, str]] = []
    total = 0
    for text in texts:
        for piece in split_pieces(replace_surrogates(text)):
            key = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest())
            heapq.heappush(heap, (-key, piece))  # a heap of the kept pieces with the largest hash on top
            total += len(piece)
            while total > max_characters and len(heap) > 1:
                total -= len(heapq.heappop(heap)[1])
    return [piece for _, piece in sorted(heap)]


def split_pieces(text: str) -> Iterator[str]:
    """The text in pieces of about 4,096 characters, ended at a line end or a space where there is one."""
    start = 0
    while start < len(text):
        end = start + _PIECE_CHARACTERS
        if end < len(text):  # so that few words are cut
            end = max(
                text.rfind("\n", start, end), text.rfind(" ", start, end), start + _PIECE_CHARACTERS // 2
            )
        yield text[start:end]
        start = end
