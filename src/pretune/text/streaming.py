"""Text that is written as its ids arrive."""

from __future__ import annotations

from collections.abc import Sequence

from pretune.text.tokenizer import Tokenizer


class DecodeStream:
    """The text of ids that arrive one by one, given out as soon as its characters are whole.

    Args:
        prefix_ids: ids that they follow, such as the end of a prompt: decoders drop the space of a first
            token.
    """

    def __init__(self, tokenizer: Tokenizer, prefix_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = [int(id) for id in prefix_ids]
        # Ids before this are given out; they stay a round as the context of the next.
        self._num_emitted = len(self._ids)

    def push(self, id: int) -> str:
        """The text that became whole with ``id``; empty while a character still lacks bytes."""
        self._ids.append(int(id))
        return self._decode_new(final=False)

    def flush(self) -> str:
        """What is left; bytes that are no UTF-8 become U+FFFD."""
        return self._decode_new(final=True)

    def _decode_new(self, final: bool) -> str:
        # Decoders treat the first token apart (its space, its ##), so new ids are decoded after known ones.
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd") and not final:
            return ""
        known = self._tokenizer.decode(self._ids[: self._num_emitted])
        if len(text) > len(known):
            self._ids = self._ids[self._num_emitted :]
            self._num_emitted = len(self._ids)
        return text[len(known) :]
