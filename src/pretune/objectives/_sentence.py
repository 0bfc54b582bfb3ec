"""What objectives that read the sentence place share: the frame of a text or a pair, and its one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pretune.data.packing import collate
from pretune.errors import UnsupportedError
from pretune.types import (
    Batch,
    Example,
    Feature,
    IntArray,
    Row,
    SpecialTokens,
    Traits,
    add_special_tokens,
    decoder_start_id,
)


@dataclass(frozen=True)
class SequenceBuilder:
    """A text or a pair, its target where the family's traits say that a head reads.

    An encoder-decoder reads it as its source, and again, shifted by one, as what its decoder has written
    (Lewis et al. 2020, section 3.1).

    Raises:
        UnsupportedError: the family has no such head, or needs an end of the text that the tokenizer lacks.
    """

    head: str
    traits: Traits
    specials: SpecialTokens

    def __post_init__(self) -> None:
        if self.head not in self.traits.heads:
            raise UnsupportedError(
                f"{self.head} needs a family with that head; this one has {self.traits.heads}"
            )

        if self._is_encoder_decoder and not self.specials.single[1]:
            raise UnsupportedError(
                f"{self.head}: an encoder-decoder is read at the token that ends a text, and this tokenizer "
                "puts none there; take one that was trained for an encoder-decoder"
            )

    @property
    def _is_encoder_decoder(self) -> bool:
        return self.traits.architecture == "encoder-decoder"

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1 or 2)."""
        return np.asarray(lengths.sum(1) + self.num_special_tokens(lengths.shape[1]))

    def num_special_tokens(self, num_sequences: int) -> int:
        """Special tokens around one text or a pair."""
        return len(add_special_tokens(self.specials, (np.zeros(0, np.int64),) * num_sequences)[0])

    def build(self, feature: Feature, target: npt.NDArray[np.generic] | None) -> Example:
        """Frame the text or the pair; ``target`` is (1,) or (1, C), or None where it is asked for."""
        tokens, segments = add_special_tokens(self.specials, feature.sequences)  # (T,), (T,)
        position = 0 if self.traits.pooling == "first" else len(tokens) - 1
        targets = {} if target is None else {self.head: target}
        source = tokens if self._is_encoder_decoder else None
        if source is not None:
            tokens = np.append(decoder_start_id(self.traits, self.specials), source[:-1]).astype(np.int64)
        row = Row(
            tokens,
            {self.head: np.array([position], np.int64)},
            targets,
            segments if self.traits.has_segment_embeddings else None,
            source_tokens=source,
        )
        return Example(feature.record, (row,))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return collate(
            groups,
            pad_id=self.specials.pad_id,
            heads=(self.head,),
            segments=self.traits.has_segment_embeddings,
        )
