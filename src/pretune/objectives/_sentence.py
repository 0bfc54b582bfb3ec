"""What objectives that read a whole text or a pair share: its special tokens, and its one target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pretune.errors import UnsupportedError
from pretune.objectives.base import Objective
from pretune.types import Example, Feature, Row, add_special_tokens, decoder_start_id


class SequenceObjective(Objective):
    """The base of objectives on a text or a pair, whose target lies where the family's traits say.

    An encoder-decoder reads it as its source, and again, shifted by one, as what its decoder has written
    (Lewis et al. 2020, section 3.1).
    """

    def check_support(self) -> None:
        """
        Raises:
            UnsupportedError: no such head, or the tokenizer lacks the end of the text that it is read at.
        """
        [head] = self.heads
        if head not in self.traits.heads:
            raise UnsupportedError(f"{head} needs a family with that head; this one has {self.traits.heads}")
        if self._is_encoder_decoder and not self.specials.single[1]:
            raise UnsupportedError(
                f"{head}: an encoder-decoder is read at the token that ends a text, and this tokenizer "
                "puts none there; take one that was trained for an encoder-decoder"
            )

    @property
    def _is_encoder_decoder(self) -> bool:
        return self.traits.architecture == "encoder-decoder"

    def build_example(self, feature: Feature, target: npt.NDArray[np.generic] | None) -> Example:
        """The text or the pair; ``target`` is (1,) or (1, C), or None where it is asked for."""
        [head] = self.heads
        tokens, segments = add_special_tokens(self.specials, feature.sequences)  # (T,), (T,)
        position = 0 if self.traits.pooling == "first" else len(tokens) - 1
        source = tokens if self._is_encoder_decoder else None
        if source is not None:
            tokens = np.append(decoder_start_id(self.traits, self.specials), source[:-1]).astype(np.int64)
        row = Row(
            tokens,
            {head: np.array([position], np.int64)},
            {} if target is None else {head: target},
            segments if self.traits.has_segment_embeddings else None,
            source_tokens=source,
        )
        return Example(feature.record, (row,))
