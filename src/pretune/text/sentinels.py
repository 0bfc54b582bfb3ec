"""Tokens that stand for a hidden span of a text: ``<extra_id_0>``, ``<extra_id_1>`` ..., as T5 names them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import tokenizers

from pretune.errors import ConfigError

_NAME = "<extra_id_{}>"


def find_sentinels(backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """The ids of the sentinels that a vocabulary has, the first one's first."""
    return tuple(_iter_sentinels(backend))


def add_sentinels(backend: tokenizers.Tokenizer, num_sentinels: int) -> None:
    """Put sentinels at the end of a vocabulary, the first one last, as T5 has them.

    Raises:
        ConfigError: it has others already.
    """
    have = len(find_sentinels(backend))
    if have:
        raise ConfigError(
            f"sentinels = {num_sentinels}: the tokenizer has {have} already, and cannot have others"
        )
    tokens = [
        tokenizers.AddedToken(_NAME.format(n), special=True, normalized=False) for n in range(num_sentinels)
    ]
    backend.add_special_tokens(tokens[::-1])


def _iter_sentinels(backend: tokenizers.Tokenizer) -> Iterator[int]:
    for number in count():
        id = backend.token_to_id(_NAME.format(number))
        if id is None:
            return
        yield id
