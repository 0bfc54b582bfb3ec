"""What objectives of an encoder-decoder share: a source, a target shifted by one, and their loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pretune.data.packing import collate
from pretune.errors import UnsupportedError
from pretune.registry import find, list_names
from pretune.types import (
    IGNORE_INDEX,
    Batch,
    BoolArray,
    Example,
    IntArray,
    Loss,
    NetworkLike,
    Row,
    SpecialTokens,
    Traits,
    add_special_tokens,
    decoder_start_id,
)

HEAD = "causal_lm"
"""The decoder predicts the next token of the target."""


@dataclass(frozen=True)
class SourceTargetBuilder:
    """Sources and targets by teacher forcing: the decoder reads the true target, shifted by one.

    Raises:
        UnsupportedError: the family is no encoder-decoder, or the tokenizer lacks what starts its decoder.
    """

    objective: str
    traits: Traits
    specials: SpecialTokens
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.traits.architecture != "encoder-decoder":
            raise UnsupportedError(
                f"{self.objective} needs an encoder-decoder, this family is a mere "
                f"{self.traits.architecture}; "
                f"encoder-decoders are: {', '.join(encoder_decoder_families()) or 'none yet'}"
            )
        decoder_start_id(self.traits, self.specials)

    @property
    def supports_packing(self) -> bool:
        """May pairs share a row of the grid?"""
        return self.traits.supports_packing

    @property
    def num_special_tokens(self) -> int:
        """Special tokens around a source, and around a target."""
        before, after = self.specials.single
        return len(before) + len(after)

    def build_example(
        self, record: int, source: IntArray, target: IntArray, target_mask: BoolArray
    ) -> Example:
        """Framed source and target; targets that are not ``target_mask`` (of the framed target) are
        ignored.
        """
        tokens = np.append(decoder_start_id(self.traits, self.specials), target[:-1]).astype(np.int64)
        targets = np.where(target_mask, target, IGNORE_INDEX).astype(np.int64)
        positions = np.arange(len(tokens), dtype=np.int64)
        return Example(record, (Row(tokens, {HEAD: positions}, {HEAD: targets}, source_tokens=source),))

    def add_special_tokens(self, tokens: IntArray) -> IntArray:
        """A source or a target with the tokenizer's special tokens around it."""
        return add_special_tokens(self.specials, (tokens,))[0]

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid, their sources in the same row of another."""
        batch = collate(groups, pad_id=self.specials.pad_id, heads=(HEAD,))
        return replace(batch, label_smoothing={HEAD: self.label_smoothing})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the target tokens."""
        outputs = network(batch, heads=(HEAD,), targets=batch.targets)
        yield Loss({HEAD: (outputs.sums[HEAD], 1.0)})


def text_mask(length: int, specials: SpecialTokens) -> BoolArray:
    """(T,) which places of a framed text of that length are the text's own."""
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
