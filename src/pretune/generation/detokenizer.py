"""A text that is written token by token: its whole characters, and where it stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pretune.text.streaming import DecodeStream
from pretune.text.tokenizer import Tokenizer

FinishReason = Literal["", "end", "stop", "length"]

NUM_CONTEXT_TOKENS = 8
"""Tokens of the prompt that the first new ones are decoded after, so that their space is kept."""


class StreamingDetokenizer:
    """The text of tokens that arrive one by one, cut before the first of the strings that stop it."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        self.tokens: list[int] = []
        self.text = ""
        """What is settled: neither half a character nor what may become a stop string."""
        self.finish_reason: FinishReason = ""
        """Why it ended; empty while it goes on."""
        self._stream = DecodeStream(tokenizer, prompt[-NUM_CONTEXT_TOKENS:])
        self._stop = tuple(stop)
        self._buffer = ""

    def push(self, token: int) -> str:
        """The text that is settled by a further token; ``reason`` says whether it is the last."""
        self.tokens.append(token)
        self._buffer += self._stream.push(token)
        return self._flush(self._partial_stop_length())

    def finish(self, finish_reason: FinishReason) -> str:
        """What is left of the text, which ends here."""
        self._buffer += self._stream.flush()
        self.finish_reason = finish_reason
        return self._flush(0)

    def _flush(self, num_held_back: int) -> str:
        found = [index for index in map(self._buffer.find, self._stop) if index >= 0]
        if found:
            self.finish_reason = "stop"
        cut = min(found) if found else len(self._buffer) - num_held_back
        new, self._buffer = self._buffer[:cut], self._buffer[cut:]
        self.text += new
        return new

    def _partial_stop_length(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._buffer)), 0, -1):
            tail = self._buffer[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0
