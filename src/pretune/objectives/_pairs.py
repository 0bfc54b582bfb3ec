"""What objectives of an encoder-decoder share: a source, a target shifted by one, and their loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pretune.data.packing import collate
from pretune.errors import UnsupportedError
from pretune.registry import find, names
from pretune.types import (
    IGNORED,
    Batch,
    BoolArray,
    Example,
    IntArray,
    Loss,
    NetworkLike,
    Row,
    Specials,
    Traits,
    decoder_start,
    framed,
)

HEAD = "causal_lm"
"""The decoder predicts the next token of the target."""


@dataclass(frozen=True)
class Pairs:
    """Sources and targets by teacher forcing: the decoder reads the true target, shifted by one.

    Raises:
        UnsupportedError: the family is no encoder-decoder, or the tokenizer lacks what starts its decoder.
    """

    objective: str
    traits: Traits
    specials: Specials
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.traits.kind != "encoder-decoder":
            raise UnsupportedError(
                f"{self.objective} needs an encoder-decoder, this family is a mere {self.traits.kind}; "
                f"encoder-decoders are: {', '.join(encoder_decoders()) or 'none yet'}"
            )
        decoder_start(self.traits, self.specials)

    @property
    def packs(self) -> bool:
        """May pairs share a row of the grid?"""
        return self.traits.packing

    @property
    def frame(self) -> int:
        """Special tokens around a source, and around a target."""
        before, after = self.specials.single
        return len(before) + len(after)

    def example(self, record: int, source: IntArray, target: IntArray, counted: BoolArray) -> Example:
        """Framed source and target; targets that are not ``counted`` (of the framed target) are ignored."""
        tokens = np.append(decoder_start(self.traits, self.specials), target[:-1]).astype(np.int64)
        told = np.where(counted, target, IGNORED).astype(np.int64)
        places = np.arange(len(tokens), dtype=np.int64)
        return Example(record, (Row(tokens, {HEAD: places}, {HEAD: told}, source=source),))

    def framed(self, tokens: IntArray) -> IntArray:
        """A source or a target with the tokenizer's special tokens around it."""
        return framed(self.specials, (tokens,))[0]

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid, their sources in the same row of another."""
        batch = collate(groups, pad=self.specials.pad, heads=(HEAD,))
        return replace(batch, smoothing={HEAD: self.label_smoothing})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over the target tokens."""
        outputs = network(batch, heads=(HEAD,), targets=batch.targets)
        yield Loss({HEAD: (outputs.sums[HEAD], 1.0)})


def text_places(length: int, specials: Specials) -> BoolArray:
    """(T,) which places of a framed text of that length are the text's own."""
    before, after = specials.single
    places = np.arange(length)
    return (places >= len(before)) & (places < length - len(after))


def encoder_decoders() -> list[str]:
    """The families that are encoder-decoders."""
    return [name for name in names("families") if find("families", name).TRAITS.kind == "encoder-decoder"]
