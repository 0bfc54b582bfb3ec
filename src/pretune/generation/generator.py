"""Prompts in, continuations out: a network, its tokenizer and its maker's defaults together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from pretune.errors import UsageError
from pretune.generation import beams
from pretune.generation.config import GenerationConfig
from pretune.generation.decoder_state import Prompt
from pretune.generation.sampling import Sampling
from pretune.generation.sampling_loop import Continuation, stream_tokens
from pretune.generation.settings import Decoding, LengthLimits, check_decoding, length_limits
from pretune.text import chat
from pretune.text.tokenizer import Tokenizer

MAX_BATCH_SIZE = 16
"""Texts that are written at once."""


@dataclass(frozen=True, slots=True)
class TextGenerator:
    """Continues prompts with a causal network, or writes what an encoder-decoder makes of them."""

    network: nn.Module
    tokenizer: Tokenizer
    generation_config: GenerationConfig
    max_length: int
    """Tokens that the network reads at most."""
    bidirectional_prompt: bool = False
    """Was a decoder trained to read the beginning of a text both ways?"""

    def generate(self, prompts: Sequence[str], decoding: Decoding) -> list[list[Continuation]]:
        """``decoding.num_return_sequences`` continuations of each prompt, in the order of the prompts."""
        decoding = self.generation_config.fill_in(decoding)
        sampling = self._resolve_sampling(decoding)
        built_prompts = self.build_prompts(prompts, decoding)
        limits_by_prompt = [self._length_limits(prompt, decoding) for prompt in built_prompts]
        self.network.eval()
        if decoding.num_beams > 1:
            return [
                beams.beam_search(
                    self.network, self.tokenizer, prompt, decoding, sampling, self.generation_config, limit,
                    max_length=self.max_length,
                )
                for prompt, limit in zip(built_prompts, limits_by_prompt, strict=True)
            ]  # fmt: skip
        found: list[list[Continuation]] = [[] for _ in prompts]
        for chosen, numbers in _batches(
            [prompt.num_tokens for prompt in built_prompts], decoding.num_return_sequences
        ):
            pieces = stream_tokens(
                self.network, self.tokenizer, [built_prompts[i] for i in chosen], decoding, sampling,
                self.generation_config,
                max_length=self.max_length, limits=[limits_by_prompt[i] for i in chosen],
                sequence_numbers=numbers,
            )  # fmt: skip
            detokenizers = {row: writer for row, _, writer in pieces}
            for row, detokenizer in sorted(detokenizers.items()):
                continuation = Continuation(
                    detokenizer.text, tuple(detokenizer.tokens), detokenizer.finish_reason
                )
                found[chosen[row // len(numbers)]].append(continuation)
        return found

    def stream(self, prompt: str, decoding: Decoding) -> Iterator[str]:
        """The text of `all` of one prompt as it is written; wrong prompts and settings are refused at once.

        What beams find is known at the end only, and comes in one piece.
        """
        decoding = self.generation_config.fill_in(decoding)
        sampling = self._resolve_sampling(decoding)
        if decoding.num_beams > 1:
            return iter([self.generate([prompt], decoding)[0][0].text])
        [built_prompt] = self.build_prompts([prompt], decoding)
        pieces = stream_tokens(
            self.network, self.tokenizer, [built_prompt], decoding, sampling, self.generation_config,
            max_length=self.max_length, limits=[self._length_limits(built_prompt, decoding)],
        )  # fmt: skip
        self.network.eval()
        return (new for _, new, _ in pieces if new)

    def build_prompts(self, texts: Sequence[str], decoding: Decoding) -> list[Prompt]:
        """The prompts as they are read: in the chat template, where ``decoding`` says so.

        Raises:
            UsageError: see `prompt`; or there is no chat template.
            CheckpointError: the chat template cannot be used.
        """
        tokenizer = self.tokenizer
        prompt_texts = (
            chat.render_prompts(tokenizer.chat_template, tokenizer.special_tokens, texts)
            if decoding.apply_chat_template
            else texts
        )
        return [self.build_prompt(text, decoding) for text in prompt_texts]

    def build_prompt(self, text: str, decoding: Decoding | None = None) -> Prompt:
        """The ids of a prompt, with what the tokenizer puts before a text; of an encoder-decoder the source.

        The names of special tokens in it are these tokens, as stock reads them, unless ``decoding`` has
        ``split_special_tokens``. A chat template has written its own frame.

        Raises:
            UsageError: it is empty, and there is no token to begin a text with; or a source is too long; or
                an encoder-decoder, which reads its source both ways, is told how to read.
        """
        specials, decoding = self.tokenizer.specials, decoding or Decoding()
        bidirectional = decoding.bidirectional_prompt
        ids = self.tokenizer.encode(text, parse_specials=not decoding.split_special_tokens).ids.tolist()
        before, after = ((), ()) if decoding.apply_chat_template else specials.single
        if self.generation_config.decoder_start_id is not None:
            if bidirectional is not None:
                raise UsageError(
                    f"bidirectional_prompt = {bidirectional}: an encoder-decoder always reads its source "
                    "both ways; leave bidirectional_prompt out, it is for a decoder's prompt"
                )
            return Prompt(
                [self.generation_config.decoder_start_id], self._check_source([*before, *ids, *after])
            )
        ids = [*before, *ids]
        bos_id = specials.bos_id if specials.bos_id is not None else specials.eos_id
        if not ids and bos_id is not None:
            return Prompt([bos_id])
        if not ids:
            raise UsageError("the prompt is empty, and this tokenizer has no start token: give some text")
        return Prompt(
            ids, bidirectional=self.bidirectional_prompt if bidirectional is None else bidirectional
        )

    def _check_source(self, source: list[int]) -> list[int]:
        if not source:
            raise UsageError("the text is empty, and this tokenizer puts nothing around one: give some text")
        if len(source) > self.max_length:
            raise UsageError(
                f"a text of {len(source):,} tokens; this model reads {self.max_length:,} at most: shorten it"
            )
        return source

    def _length_limits(self, prompt: Prompt, decoding: Decoding) -> LengthLimits:
        """No longer than the decoder of an encoder-decoder reads; that of others forgets and goes on."""
        max_length = None if self.generation_config.decoder_start_id is None else self.max_length
        return length_limits(decoding, len(prompt.tokens), max_length)

    def _resolve_sampling(self, decoding: Decoding) -> Sampling:
        sampling = decoding.sampling or self.generation_config.sampling
        check_decoding(decoding, sampling)
        return sampling


def _batches(lengths: Sequence[int], num_sequences: int) -> Iterator[tuple[list[int], range]]:
    """Prompts, and which of the ``num_sequences`` sequences of them, that are written at once:
    ``DEFAULT_ROWS`` together.

    Prompts of similar length share a batch, which is as wide as its longest.
    """
    order = np.argsort(lengths, kind="stable").tolist()
    size = max(1, MAX_BATCH_SIZE // num_sequences)
    for start in range(0, len(order), size):
        for number in range(0, num_sequences, MAX_BATCH_SIZE):
            yield order[start : start + size], range(number, min(num_sequences, number + MAX_BATCH_SIZE))
