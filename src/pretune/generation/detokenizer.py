"""A text that is written token by token: its whole characters, and where it stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pretune.text.streaming import TextStream
from pretune.text.tokenizer import Tokenizer

Reason = Literal["", "end", "stop", "length"]

CONTEXT = 8
"""Tokens of the prompt that the first new ones are decoded after, so that their space is kept."""


class Writer:
    """The text of tokens that arrive one by one, cut before the first of the strings that stop it."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], stop: Sequence[str] = ()) -> None:
        self.tokens: list[int] = []
        self.text = ""
        """What is settled: neither half a character nor what may become a stop string."""
        self.reason: Reason = ""
        """Why it ended; empty while it goes on."""
        self._stream = TextStream(tokenizer, prompt[-CONTEXT:])
        self._stop = tuple(stop)
        self._held = ""

    def take(self, token: int) -> str:
        """The text that is settled by a further token; ``reason`` says whether it is the last."""
        self.tokens.append(token)
        self._held += self._stream.push(token)
        return self._settle(self._open())

    def finish(self, reason: Reason) -> str:
        """What is left of the text, which ends here."""
        self._held += self._stream.end()
        self.reason = reason
        return self._settle(0)

    def _settle(self, open_end: int) -> str:
        found = [place for place in map(self._held.find, self._stop) if place >= 0]
        if found:
            self.reason = "stop"
        cut = min(found) if found else len(self._held) - open_end
        new, self._held = self._held[:cut], self._held[cut:]
        self.text += new
        return new

    def _open(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            tail = self._held[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0
