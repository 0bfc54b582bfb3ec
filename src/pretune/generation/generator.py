"""Prompts in, continuations out: a network, its tokenizer and its maker's defaults together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from pretune.errors import UsageError
from pretune.generation import beams
from pretune.generation.config import Defaults
from pretune.generation.decoder_state import Prompt
from pretune.generation.sampling import Sampling
from pretune.generation.sampling_loop import Continuation, write
from pretune.generation.settings import Decoding, Limits, check, limits
from pretune.text import chat
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
        decoding = self.defaults.complete(decoding)
        sampling = self._sampling(decoding)
        read = self.prompts(prompts, decoding)
        bounds = [self._limits(prompt, decoding) for prompt in read]
        self.network.eval()
        if decoding.num_beams > 1:
            return [
                beams.search(
                    self.network, self.tokenizer, prompt, decoding, sampling, self.defaults, limit,
                    max_length=self.max_length,
                )
                for prompt, limit in zip(read, bounds, strict=True)
            ]  # fmt: skip
        found: list[list[Continuation]] = [[] for _ in prompts]
        for chosen, numbers in _batches([prompt.size for prompt in read], decoding.num_return_sequences):
            pieces = write(
                self.network, self.tokenizer, [read[i] for i in chosen], decoding, sampling, self.defaults,
                max_length=self.max_length, limits=[bounds[i] for i in chosen], numbers=numbers,
            )  # fmt: skip
            writers = {row: writer for row, _, writer in pieces}
            for row, writer in sorted(writers.items()):
                said = Continuation(writer.text, tuple(writer.tokens), writer.reason)
                found[chosen[row // len(numbers)]].append(said)
        return found

    def stream(self, prompt: str, decoding: Decoding) -> Iterator[str]:
        """The text of `all` of one prompt as it is written; wrong prompts and settings are refused at once.

        What beams find is known at the end only, and comes in one piece.
        """
        decoding = self.defaults.complete(decoding)
        sampling = self._sampling(decoding)
        if decoding.num_beams > 1:
            return iter([self.all([prompt], decoding)[0][0].text])
        [read] = self.prompts([prompt], decoding)
        pieces = write(
            self.network, self.tokenizer, [read], decoding, sampling, self.defaults,
            max_length=self.max_length, limits=[self._limits(read, decoding)],
        )  # fmt: skip
        self.network.eval()
        return (new for _, new, _ in pieces if new)

    def prompts(self, texts: Sequence[str], decoding: Decoding) -> list[Prompt]:
        """The prompts as they are read: in the chat template, where ``decoding`` says so.

        Raises:
            UsageError: see `prompt`; or there is no chat template.
            CheckpointError: the chat template cannot be used.
        """
        tokenizer = self.tokenizer
        written = chat.asked(tokenizer.chat_template, tokenizer.names, texts) if decoding.chat else texts
        return [self.prompt(text, decoding) for text in written]

    def prompt(self, text: str, decoding: Decoding | None = None) -> Prompt:
        """The ids of a prompt, with what the tokenizer puts before a text; of an encoder-decoder the source.

        The names of special tokens in it are these tokens, as stock reads them, unless ``decoding`` says that
        it is literal. A chat template has written its own frame.

        Raises:
            UsageError: it is empty, and there is no token to begin a text with; or a source is too long; or
                an encoder-decoder, which reads its source both ways, is told how to read.
        """
        specials, decoding = self.tokenizer.specials, decoding or Decoding()
        both_ways = decoding.both_ways
        ids = self.tokenizer.encode(text, parse_specials=not decoding.literal).ids.tolist()
        before, after = ((), ()) if decoding.chat else specials.single
        if self.defaults.start is not None:
            if both_ways is not None:
                raise UsageError(
                    f"both_ways = {both_ways}: an encoder-decoder always reads its source both ways; "
                    "leave both_ways out, it is for a decoder's prompt"
                )
            return Prompt([self.defaults.start], self._source([*before, *ids, *after]))
        ids = [*before, *ids]
        begin = specials.start if specials.start is not None else specials.end
        if not ids and begin is not None:
            return Prompt([begin])
        if not ids:
            raise UsageError("the prompt is empty, and this tokenizer has no start token: give some text")
        return Prompt(ids, both_ways=self.both_ways if both_ways is None else both_ways)

    def _source(self, source: list[int]) -> list[int]:
        if not source:
            raise UsageError("the text is empty, and this tokenizer puts nothing around one: give some text")
        if len(source) > self.max_length:
            raise UsageError(
                f"a text of {len(source):,} tokens; this model reads {self.max_length:,} at most: shorten it"
            )
        return source

    def _limits(self, prompt: Prompt, decoding: Decoding) -> Limits:
        """No longer than the decoder of an encoder-decoder reads; that of others forgets and goes on."""
        longest = None if self.defaults.start is None else self.max_length
        return limits(decoding, len(prompt.tokens), longest)

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
