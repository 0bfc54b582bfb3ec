"""What objectives on two stretches of a window share: where it is cut, the row, the class and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.nn import functional as F

from pretune.data.packing import collate
from pretune.errors import DataError, UnsupportedError
from pretune.text.segmentation import SENTENCE
from pretune.types import (
    Batch,
    Example,
    Feature,
    IntArray,
    LossTerms,
    Outputs,
    Row,
    Specials,
    Traits,
    framed,
    framed_starts,
)

HEAD = "next_sentence"
"""Of two classes, told of a pair of texts."""

Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class TwoTexts:
    """Two texts in one frame, and their class.

    Raises:
        UnsupportedError: the family has no head for it.
    """

    objective: str
    traits: Traits
    specials: Specials

    def __post_init__(self) -> None:
        if HEAD not in self.traits.heads:
            raise UnsupportedError(
                f"{self.objective} needs a family with a {HEAD!r} head; this one has {self.traits.heads}"
            )

    @property
    def frame(self) -> int:
        """Special tokens around two texts."""
        return frame_length(self.specials)

    def starts(self, feature: Feature) -> Flags:
        """Word and sentence starts of a window.

        Raises:
            DataError: it says nothing of them.
        """
        if feature.starts is None:
            raise DataError(
                f"{self.objective} needs to know where sentences start, and this text says nothing of it"
            )
        return feature.starts[0]

    def row(self, sequences: tuple[IntArray, ...], starts: tuple[Flags, ...], label: int | None) -> Row:
        """``[CLS] A [SEP] B [SEP]`` with its class, if there is one."""
        tokens, segments = framed(self.specials, sequences)
        place = 0 if self.traits.sentence == "first" else len(tokens) - 1
        told = [] if label is None else [label]
        return Row(
            tokens,
            {HEAD: np.full(len(told), place, np.int64)},
            {HEAD: np.array(told, np.int64)},
            segments if self.traits.segments else None,
            starts=framed_starts(self.specials, starts),
        )

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        return collate(groups, pad=self.specials.pad, heads=(HEAD,), segments=self.traits.segments)

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        """Cross-entropy in nats, summed over the pairs, of outputs that hold this head's logits."""
        total = F.cross_entropy(outputs.logits[HEAD].float(), batch.targets[HEAD], reduction="sum")
        return {HEAD: (total, 1.0)}


def cut_near(starts: Flags, point: int) -> int:
    """The sentence start nearest to ``point``, or, if the text has none but its first, the point itself."""
    places = np.flatnonzero(starts[1:] & SENTENCE) + 1
    return int(places[np.abs(places - point).argmin()]) if len(places) else point


def frame_length(specials: Specials) -> int:
    """Special tokens around two texts."""
    return len(framed(specials, (np.zeros(0, np.int64),) * 2)[0])
