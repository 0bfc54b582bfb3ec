"""Prompts in, continuations out: a network, its tokenizer and its maker's defaults together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from pretune.errors import UsageError
from pretune.generation import beams
from pretune.generation.decode import Continuation, Decoding, check, write
from pretune.generation.defaults import Defaults
from pretune.generation.reader import Prompt
from pretune.generation.sampling import Sampling
from pretune.generation.writer import Writer
from pretune.text.tokenizer import Tokenizer

ROWS = 16
"""Texts that are written at once."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """Continues prompts with a causal network, or writes what an encoder-decoder makes of them."""

    network: nn.Module
    tokenizer: Tokenizer
    defaults: Defaults
    max_length: int
    """Tokens that the network reads at most."""
    both_ways: bool = False
    """Was a decoder trained to read the beginning of a text both ways?"""

    def all(self, prompts: Sequence[str], decoding: Decoding) -> list[list[Continuation]]:
        """``decoding.num_return_sequences`` continuations of each prompt, in the order of the prompts."""
        sampling = self._sampling(decoding)
        decoding = self._limited(decoding)
        read = [self.prompt(prompt, decoding.both_ways) for prompt in prompts]
        self.network.eval()
        if decoding.num_beams > 1:
            return [
                beams.search(
                    self.network, self.tokenizer, prompt, decoding, sampling, self.defaults,
                    max_length=self.max_length,
                )
                for prompt in read
            ]  # fmt: skip
        found: list[list[Continuation]] = [[] for _ in prompts]
        for chosen, numbers in _batches([prompt.size for prompt in read], decoding.num_return_sequences):
            pieces = self._write([read[i] for i in chosen], decoding, sampling, numbers)
            writers = {row: writer for row, _, writer in pieces}
            for row, writer in sorted(writers.items()):
                said = Continuation(writer.text, tuple(writer.tokens), writer.reason)
                found[chosen[row // len(numbers)]].append(said)
        return found

    def write(self, prompts: Sequence[str], decoding: Decoding) -> Iterator[tuple[int, str, Writer]]:
        """Text as it is written, see `decode.write`; wrong prompts and settings are refused at once."""
        sampling = self._sampling(decoding)
        read = [self.prompt(prompt, decoding.both_ways) for prompt in prompts]
        self.network.eval()
        return self._write(read, self._limited(decoding), sampling)

    def prompt(self, text: str, both_ways: bool | None = None) -> Prompt:
        """The ids of a prompt, with what the tokenizer puts before a text; of an encoder-decoder the source.

        Args:
            both_ways: None: as the network was trained.

        Raises:
            UsageError: it is empty, and there is no token to begin a text with; or a source is too long; or
                an encoder-decoder, which reads its source both ways, is told how to read.
        """
        specials = self.tokenizer.specials
        if self.defaults.start is not None:
            if both_ways is not None:
                raise UsageError(
                    f"both_ways = {both_ways}: an encoder-decoder always reads its source both ways; "
                    "leave both_ways out, it is for a decoder's prompt"
                )
            return Prompt([self.defaults.start], self._source(text))
        ids = [*specials.single[0], *self.tokenizer.encode(text).ids.tolist()]
        begin = specials.start if specials.start is not None else specials.end
        if not ids and begin is not None:
            return Prompt([begin])
        if not ids:
            raise UsageError("the prompt is empty, and this tokenizer has no start token: give some text")
        return Prompt(ids, both_ways=self.both_ways if both_ways is None else both_ways)

    def _source(self, text: str) -> list[int]:
        """A text in its frame; the marks of hidden text mean what they meant in pretraining."""
        specials = self.tokenizer.specials
        marks = [*specials.sentinels, *([] if specials.mask is None else [specials.mask])]
        marked = any(self.tokenizer.token(mark) in text for mark in marks)
        ids = self.tokenizer.encode(text, parse_specials=marked).ids.tolist()
        source = [*specials.single[0], *ids, *specials.single[1]]
        if not source:
            raise UsageError("the text is empty, and this tokenizer puts nothing around one: give some text")
        if len(source) > self.max_length:
            raise UsageError(
                f"a text of {len(source):,} tokens; this model reads {self.max_length:,} at most: shorten it"
            )
        return source

    def _limited(self, decoding: Decoding) -> Decoding:
        """No longer than the decoder of an encoder-decoder reads; that of others forgets and goes on."""
        if self.defaults.start is None or decoding.max_new_tokens <= self.max_length:
            return decoding
        least = min(decoding.min_new_tokens, self.max_length)
        return decoding.model_copy(update={"max_new_tokens": self.max_length, "min_new_tokens": least})

    def _write(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        sampling: Sampling,
        numbers: Sequence[int] = (0,),
    ) -> Iterator[tuple[int, str, Writer]]:
        return write(
            self.network, self.tokenizer, prompts, decoding, sampling, self.defaults,
            max_length=self.max_length, numbers=numbers,
        )  # fmt: skip

    def _sampling(self, decoding: Decoding) -> Sampling:
        sampling = decoding.sampling or self.defaults.sampling
        check(decoding, sampling)
        return sampling


def _batches(lengths: Sequence[int], each: int) -> Iterator[tuple[list[int], range]]:
    """Prompts, and which of the ``each`` sequences of them, that are written at once: ``ROWS`` together.

    Prompts of similar length share a batch, which is as wide as its longest.
    """
    order = np.argsort(lengths, kind="stable").tolist()
    size = max(1, ROWS // each)
    for start in range(0, len(order), size):
        for number in range(0, each, ROWS):
            yield order[start : start + size], range(number, min(each, number + ROWS))
