"""What objectives of an encoder-decoder share: a source, and a target shifted by one."""

from __future__ import annotations

import numpy as np

from pretune.errors import UnsupportedError
from pretune.objectives.base import LanguageModelObjective
from pretune.registry import find, list_names
from pretune.types import (
    IGNORE_INDEX,
    BoolArray,
    Example,
    IntArray,
    Row,
    SpecialTokens,
    Traits,
    add_special_tokens,
    decoder_start_id,
)

HEAD = "causal_lm"
"""The decoder predicts the next token of the target."""


class SourceTargetObjective(LanguageModelObjective):
    """The base of objectives by teacher forcing: the decoder reads the true target, shifted by one."""

    heads = (HEAD,)
    architectures = ("encoder-decoder",)

    def check_support(self) -> None:
        """
        Raises:
            UnsupportedError: no encoder-decoder, or the tokenizer lacks what starts its decoder.
        """
        if self.traits.architecture != "encoder-decoder":
            raise UnsupportedError(
                f"{self.name()} needs an encoder-decoder, this family is a mere "
                f"{self.traits.architecture}; "
                f"encoder-decoders are: {', '.join(encoder_decoder_families()) or 'none yet'}"
            )
        decoder_start_id(self.traits, self.specials)
        self.supports_packing = self.traits.supports_packing

    def build_example(
        self, record: int, source: IntArray, target: IntArray, target_mask: BoolArray
    ) -> Example:
        """See `build_source_target_row`."""
        row = build_source_target_row(self.traits, self.specials, source, target, target_mask)
        return Example(record, (row,))

    def add_special_tokens(self, tokens: IntArray) -> IntArray:
        """A source or a target with the tokenizer's special tokens around it."""
        return add_special_tokens(self.specials, (tokens,))[0]


def build_source_target_row(
    traits: Traits, specials: SpecialTokens, source: IntArray, target: IntArray, target_mask: BoolArray
) -> Row:
    """A row of (S,) source and (T,) target, both with their special tokens.

    Args:
        target_mask: (T,) which targets count in the loss.
    """
    tokens = np.append(decoder_start_id(traits, specials), target[:-1]).astype(np.int64)  # (T,)
    targets = np.where(target_mask, target, IGNORE_INDEX).astype(np.int64)
    return Row(tokens, {HEAD: np.arange(len(tokens), dtype=np.int64)}, {HEAD: targets}, source_tokens=source)


def text_mask(length: int, specials: SpecialTokens) -> BoolArray:
    """(T,) which positions of a text of that length, special tokens included, are the text's own."""
    before, after = specials.single
    positions = np.arange(length)
    return (positions >= len(before)) & (positions < length - len(after))


def encoder_decoder_families() -> list[str]:
    """The families that are encoder-decoders."""
    return [
        name
        for name in list_names("families")
        if find("families", name).TRAITS.architecture == "encoder-decoder"
    ]
