"""What objectives on two stretches of a window share: where it is cut, the row, the class and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.nn import functional as F

from pretune.data.packing import collate
from pretune.errors import DataError, UnsupportedError
from pretune.text.segmentation import SENTENCE_START
from pretune.types import (
    Batch,
    Example,
    Feature,
    IntArray,
    LossTerms,
    Outputs,
    Row,
    SpecialTokens,
    Traits,
    add_special_token_starts,
    add_special_tokens,
)

HEAD = "next_sentence"
"""Of two classes, told of a pair of texts."""

StartFlags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TextPairBuilder:
    """Two texts in one frame, and their class.

    Raises:
        UnsupportedError: the family has no head for it.
    """

    objective: str
    traits: Traits
    specials: SpecialTokens

    def __post_init__(self) -> None:
        if HEAD not in self.traits.heads:
            raise UnsupportedError(
                f"{self.objective} needs a family with a {HEAD!r} head; this one has {self.traits.heads}"
            )

    @property
    def num_special_tokens(self) -> int:
        """Special tokens around two texts."""
        return num_pair_special_tokens(self.specials)

    def word_starts(self, feature: Feature) -> StartFlags:
        """Word and sentence starts of a window.

        Raises:
            DataError: it says nothing of them.
        """
        if feature.word_starts is None:
            raise DataError(
                f"{self.objective} needs to know where sentences start, and this text says nothing of it"
            )
        return feature.word_starts[0]

    def build_row(
        self, sequences: tuple[IntArray, ...], word_starts: tuple[StartFlags, ...], label: int | None
    ) -> Row:
        """``[CLS] A [SEP] B [SEP]`` with its class, if there is one."""
        tokens, segments = add_special_tokens(self.specials, sequences)
        position = 0 if self.traits.pooling == "first" else len(tokens) - 1
        labels = [] if label is None else [label]
        return Row(
            tokens,
            {HEAD: np.full(len(labels), position, np.int64)},
            {HEAD: np.array(labels, np.int64)},
            segments if self.traits.has_segment_embeddings else None,
            word_starts=add_special_token_starts(self.specials, word_starts),
        )

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return collate(
            groups, pad_id=self.specials.pad_id, heads=(HEAD,), segments=self.traits.has_segment_embeddings
        )

    def loss_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Cross-entropy in nats, summed over the pairs, of outputs that hold this head's logits."""
        total = F.cross_entropy(outputs.logits[HEAD].float(), batch.targets[HEAD], reduction="sum")
        return {HEAD: (total, 1.0)}


def nearest_sentence_start(word_starts: StartFlags, position: int) -> int:
    """The sentence start nearest to ``position``, or, if the text has none but its first, the point
    itself.
    """
    positions = np.flatnonzero(word_starts[1:] & SENTENCE_START) + 1
    return int(positions[np.abs(positions - position).argmin()]) if len(positions) else position


def num_pair_special_tokens(specials: SpecialTokens) -> int:
    """Special tokens around two texts."""
    return len(add_special_tokens(specials, (np.zeros(0, np.int64),) * 2)[0])
