"""Prefix language modelling: a text's beginning is read both ways, its rest predicted token by token.

Raffel et al. 2020, section 3.2.3. A window is cut at a random token. A decoder reads it in one row, within
whose prefix every place sees every other (``Layout.prefix_lengths``), and learns what follows and the end
token; an encoder-decoder reads the prefix as its source and writes the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pydantic

from pretune.config import Settings
from pretune.data.packing import collate
from pretune.errors import UnsupportedError
from pretune.objectives._pairs import HEAD as HEAD
from pretune.objectives._pairs import SourceTargetBuilder, text_mask
from pretune.types import (
    IGNORE_INDEX,
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    NetworkLike,
    Row,
    SpecialTokens,
    Traits,
    WindowSpec,
)

ARCHITECTURES = ("decoder", "encoder-decoder")
EVALUATION_OPTIONS: Mapping[str, bool] = {"hidden_only": True}
"""How held-out text is scored: a window ends anywhere, and its end token says nothing of the language."""


class Options(Settings):
    """Settings of prefix language modelling."""

    hidden_only: bool = False
    """Count the loss at the text's tokens alone, not at the end token."""
    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""


def window_spec(specials: SpecialTokens, max_length: int) -> WindowSpec:
    """Windows that leave room for the frame; none overlaps, so that each token lies in one."""
    before, after = specials.single
    return WindowSpec(length=max_length - len(before) - len(after))


class Objective:
    """Windows of text, cut in two at a random token."""

    heads = (HEAD,)
    predicts_every_token = False

    def __init__(
        self,
        traits: Traits,
        specials: SpecialTokens,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.specials, self.options = specials, options or Options()
        if traits.architecture == "encoder" or HEAD not in traits.heads:
            raise UnsupportedError(
                "prefix_lm needs a decoder or an encoder-decoder, this family is a mere "
                f"{traits.architecture}"
            )
        label_smoothing = self.options.label_smoothing
        self._builder: SourceTargetBuilder | None = None
        if traits.architecture == "encoder-decoder":
            self._builder = SourceTargetBuilder("prefix_lm", traits, specials, label_smoothing)
        self.supports_packing = self._builder is not None and self._builder.supports_packing

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        before, after = self.specials.single
        return np.asarray(lengths.sum(1) + len(before) + len(after))

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Cut the window; of a single token the end alone is predicted."""
        tokens = feature.sequences[0]
        cut = int(rng.integers(1, len(tokens))) if len(tokens) > 1 else 1
        if self._builder is None:
            return Example(feature.record, (self._build_row(tokens, cut),))
        source, target = (
            self._builder.add_special_tokens(segment) for segment in (tokens[:cut], tokens[cut:])
        )
        target_mask = np.ones(len(target), bool)
        if self.options.hidden_only:
            target_mask = text_mask(len(target), self.specials)
        return self._builder.build_example(feature.record, source, target, target_mask)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = collate(groups, pad_id=self.specials.pad_id, heads=self.heads)
        return replace(batch, label_smoothing={HEAD: self.options.label_smoothing})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over what follows the prefixes."""
        outputs = network(batch, heads=self.heads, targets=batch.targets)
        yield Loss({HEAD: (outputs.sums[HEAD], 1.0)})

    def _build_row(self, tokens: IntArray, prefix_length: int) -> Row:
        """Prefix and rest in one row; the last place of the prefix says the first token of the rest."""
        before = np.array(self.specials.single[0], np.int64)
        prefix = len(before) + prefix_length
        targets = tokens[prefix_length:]
        if self.specials.eos_id is not None and not self.options.hidden_only:
            targets = np.append(targets, self.specials.eos_id)
        positions = np.arange(len(targets), dtype=np.int64) + prefix - 1
        return Row(np.concatenate([before, tokens]), {HEAD: positions}, {HEAD: targets}, prefix_length=prefix)


def ngram_contexts(feature: Feature, example: Example, specials: SpecialTokens) -> tuple[IntArray, IntArray]:
    """(previous token, target) of each counted token, for the n-gram baselines."""
    row, text = example.rows[0], feature.sequences[0]
    targets = row.targets[HEAD]
    if row.source_tokens is None:
        return row.tokens[row.positions[HEAD]], targets
    previous = np.full(len(targets), -1, np.int64)
    text_positions = np.flatnonzero(text_mask(len(targets), specials))
    previous[text_positions] = text[len(text) - len(text_positions) - 1 : -1]
    counted = targets != IGNORE_INDEX
    return previous[counted], targets[counted]
