"""Leaving out texts that were there before."""

from __future__ import annotations

import hashlib


def text_hash(text: str) -> int:
    """64 bits of BLAKE2 over the text with its white space made even, never 0.

    Two different texts share a hash with a chance of 1 in 37 million among a million documents.
    """
    even = " ".join(text.split()).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(even, digest_size=8).digest()) or 1


class ExactDuplicates:
    """Remembers hashes of texts, not texts: about 100 MB a million documents, however long they are."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def seen(self, text: str) -> bool:
        """Was this text (up to white space) asked about before?"""
        value = text_hash(text)
        if value in self._hashes:
            return True
        self._hashes.add(value)
        return False

    def __len__(self) -> int:
        return len(self._hashes)
