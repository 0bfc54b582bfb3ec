"""Prefix language modelling: a text's beginning is read both ways, its rest predicted token by token.

Raffel et al. 2020, section 3.2.3. A window is cut at a random token. A decoder reads it in one row, within
whose prefix every place sees every other (``Layout.prefix``), and learns what follows and the end token; an
encoder-decoder reads the prefix as its source and writes the rest.
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
from pretune.objectives._pairs import Pairs, text_places
from pretune.types import (
    IGNORED,
    Batch,
    Example,
    Feature,
    FeatureStore,
    IntArray,
    Loss,
    NetworkLike,
    Row,
    Specials,
    Traits,
    Windowing,
)

KINDS = ("decoder", "encoder-decoder")
SCORING: Mapping[str, bool] = {"hidden_only": True}
"""How held-out text is scored: a window ends anywhere, and its end token says nothing of the language."""


class Options(Settings):
    """Settings of prefix language modelling."""

    hidden_only: bool = False
    """Count the loss at the text's tokens alone, not at the end token."""
    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary, in training; held-out losses are without."""


def windowing(specials: Specials, max_length: int) -> Windowing:
    """Windows that leave room for the frame; none overlaps, so that each token lies in one."""
    before, after = specials.single
    return Windowing(length=max_length - len(before) - len(after))


class Objective:
    """Windows of text, cut in two at a random token."""

    heads = (HEAD,)
    every_token = False

    def __init__(
        self,
        traits: Traits,
        specials: Specials,
        options: Options | None = None,
        store: FeatureStore | None = None,
    ) -> None:
        self.specials, self.options = specials, options or Options()
        if traits.kind == "encoder" or HEAD not in traits.heads:
            raise UnsupportedError(
                f"prefix_lm needs a decoder or an encoder-decoder, this family is a mere {traits.kind}"
            )
        smoothing = self.options.label_smoothing
        self._pairs: Pairs | None = None
        if traits.kind == "encoder-decoder":
            self._pairs = Pairs("prefix_lm", traits, specials, smoothing)
        self.packs = self._pairs is not None and self._pairs.packs

    def length_bounds(self, lengths: IntArray) -> IntArray:
        """Places that each feature needs, (n,), of its token counts, (n, 1)."""
        before, after = self.specials.single
        return np.asarray(lengths.sum(1) + len(before) + len(after))

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Cut the window; of a single token the end alone is predicted."""
        tokens = feature.sequences[0]
        cut = int(rng.integers(1, len(tokens))) if len(tokens) > 1 else 1
        if self._pairs is None:
            return Example(feature.record, (self._row(tokens, cut),))
        source, target = (self._pairs.framed(part) for part in (tokens[:cut], tokens[cut:]))
        counted = np.ones(len(target), bool)
        if self.options.hidden_only:
            counted = text_places(len(target), self.specials)
        return self._pairs.example(feature.record, source, target, counted)

    def collate(self, groups: Sequence[Sequence[Example]]) -> Batch:
        """A group of examples a row of the grid."""
        batch = collate(groups, pad=self.specials.pad, heads=self.heads)
        return replace(batch, smoothing={HEAD: self.options.label_smoothing})

    def loss(self, network: NetworkLike, batch: Batch) -> Iterator[Loss]:
        """Cross-entropy in nats, summed over what follows the prefixes."""
        outputs = network(batch, heads=self.heads, targets=batch.targets)
        yield Loss({HEAD: (outputs.sums[HEAD], 1.0)})

    def _row(self, tokens: IntArray, cut: int) -> Row:
        """Prefix and rest in one row; the last place of the prefix says the first token of the rest."""
        before = np.array(self.specials.single[0], np.int64)
        prefix = len(before) + cut
        said = tokens[cut:]
        if self.specials.end is not None and not self.options.hidden_only:
            said = np.append(said, self.specials.end)
        places = np.arange(len(said), dtype=np.int64) + prefix - 1
        return Row(np.concatenate([before, tokens]), {HEAD: places}, {HEAD: said}, prefix=prefix)


def contexts(feature: Feature, example: Example, specials: Specials) -> tuple[IntArray, IntArray]:
    """(previous token, target) of each counted token, for the n-gram baselines."""
    row, text = example.rows[0], feature.sequences[0]
    told = row.targets[HEAD]
    if row.source is None:
        return row.tokens[row.places[HEAD]], told
    previous = np.full(len(told), -1, np.int64)
    inner = np.flatnonzero(text_places(len(told), specials))
    previous[inner] = text[len(text) - len(inner) - 1 : -1]
    counted = told != IGNORED
    return previous[counted], told[counted]
