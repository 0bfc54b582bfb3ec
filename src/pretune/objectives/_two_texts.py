"""What objectives on two stretches of a window share: where it is cut, the row, the class and its loss."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch.nn import functional as F

from pretune.errors import DataError
from pretune.objectives.base import Objective, num_special_tokens
from pretune.text.segmentation import SENTENCE_START
from pretune.types import (
    Batch,
    Feature,
    IntArray,
    LossTerms,
    Outputs,
    Row,
    SpecialTokens,
    WindowSpec,
    add_special_token_starts,
    add_special_tokens,
)

HEAD = "next_sentence"
"""Of two classes, told of a pair of texts."""

StartFlags = npt.NDArray[np.uint8]


class TextPairObjective(Objective):
    """The base of objectives on two texts of one window, and their class.

    The head reads the position that it is given: it need not be the first of a row, only of its text.
    """

    heads = (HEAD,)

    @classmethod
    def window_spec(cls, specials: SpecialTokens, max_length: int) -> WindowSpec:
        """Windows that leave room for the special tokens of a pair; none overlaps."""
        return WindowSpec(length=max_length - num_special_tokens(specials, 2))

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Positions that each feature needs, (n,), of its token counts, (n, 1)."""
        return np.asarray(lengths.sum(1) + num_special_tokens(self.specials, 2))

    def word_starts(self, feature: Feature) -> StartFlags:
        """Word and sentence starts of a window.

        Raises:
            DataError: it says nothing of them.
        """
        if feature.word_starts is None:
            raise DataError(
                f"{self.name()} needs to know where sentences start, and this text says nothing of it"
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
