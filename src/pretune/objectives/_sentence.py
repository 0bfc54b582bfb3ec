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
    Specials,
    Traits,
    decoder_start,
    framed,
)


@dataclass(frozen=True)
class SentencePlace:
    """A text or a pair, its target where the family's traits say that a head reads.

    An encoder-decoder reads it as its source, and again, shifted by one, as what its decoder has written
    (Lewis et al. 2020, section 3.1).

    Raises:
        UnsupportedError: the family has no such head, or needs an end of the text that the tokenizer lacks.
    """

    head: str
    traits: Traits
    specials: Specials

    def __post_init__(self) -> None:
        if self.head not in self.traits.heads:
            raise UnsupportedError(
                f"{self.head} needs a family with that head; this one has {self.traits.heads}"
            )

        if self._reads_twice and not self.specials.single[1]:
            raise UnsupportedError(
                f"{self.head}: an encoder-decoder is read at the token that ends a text, and this tokenizer "
                "puts none there; take one that was trained for an encoder-decoder"
            )

    @property
    def _reads_twice(self) -> bool:
        return self.traits.kind == "encoder-decoder"

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1 or 2)."""
        return np.asarray(lengths.sum(1) + self.frame_length(lengths.shape[1]))

    def frame_length(self, sequences: int) -> int:
        """Special tokens around one text or a pair."""
        return len(framed(self.specials, (np.zeros(0, np.int64),) * sequences)[0])

    def build(self, feature: Feature, target: npt.NDArray[np.generic] | None) -> Example:
        """Frame the text or the pair; ``target`` is (1,) or (1, C), or None where it is asked for."""
        tokens, segments = framed(self.specials, feature.sequences)  # (T,), (T,)
        place = 0 if self.traits.sentence == "first" else len(tokens) - 1
        targets = {} if target is None else {self.head: target}
        source = tokens if self._reads_twice else None
        if source is not None:
            tokens = np.append(decoder_start(self.traits, self.specials), source[:-1]).astype(np.int64)
        row = Row(
            tokens,
            {self.head: np.array([place], np.int64)},
            targets,
            segments if self.traits.segments else None,
            source=source,
        )
        return Example(feature.record, (row,))

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return collate(groups, pad=self.specials.pad, heads=(self.head,), segments=self.traits.segments)
