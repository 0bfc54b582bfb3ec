"""What objectives that read tokens of a text share: its special tokens, and targets at some positions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretune.objectives.base import Objective
from pretune.types import Example, Feature, IntArray, Row, add_special_tokens, decoder_start_id


class TokenObjective(Objective):
    """The base of objectives on a text or a pair with targets at positions of its own.

    An encoder-decoder reads it as its source, and again, shifted by one, as what its decoder has written.
    """

    def build_example(
        self, feature: Feature, positions: IntArray | None, targets: npt.NDArray[np.generic] | None
    ) -> Example:
        """The example of a feature; ``positions`` (n,) of the text with its special tokens, None: all."""
        [head] = self.heads
        tokens, segments = add_special_tokens(self.specials, feature.sequences)  # (T,), (T,)
        source = tokens if self.traits.architecture == "encoder-decoder" else None
        if source is not None:
            tokens = np.append(decoder_start_id(self.traits, self.specials), source[:-1]).astype(np.int64)
        row = Row(
            tokens,
            {head: np.arange(len(tokens)) if positions is None else positions},
            {} if targets is None else {head: targets},
            segments if self.traits.has_segment_embeddings else None,
            source_tokens=source,
        )
        return Example(feature.record, (row,))
