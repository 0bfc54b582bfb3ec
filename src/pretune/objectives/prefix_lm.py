"""Prefix language modelling: a text's beginning is read both ways, its rest predicted token by token.

Raffel et al. 2020, section 3.2.3. A window is cut at a random token. A decoder reads it in one row, within
whose prefix every place sees every other (``Layout.prefix_lengths``), and learns what follows and the end
token; an encoder-decoder reads the prefix as its source and writes the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from pretune.errors import UnsupportedError
from pretune.objectives._pairs import HEAD as HEAD
from pretune.objectives._pairs import build_source_target_row, text_mask
from pretune.objectives.base import LanguageModelObjective, LanguageModelOptions
from pretune.types import (
    IGNORE_INDEX,
    Example,
    Feature,
    IntArray,
    Row,
    SpecialTokens,
    add_special_tokens,
    decoder_start_id,
)


class Options(LanguageModelOptions):
    """Settings of prefix language modelling."""

    masked_only: bool = False
    """Count the loss at the text's tokens alone, not at the end token."""


class Objective(LanguageModelObjective):
    """Windows of text, cut in two at a random token."""

    heads = (HEAD,)
    architectures = ("decoder", "encoder-decoder")
    options_type = Options
    options: Options
    evaluation_options: ClassVar[Mapping[str, Any]] = {"masked_only": True}
    """A window ends anywhere, and its end token says nothing of the language."""

    def check_support(self) -> None:
        """
        Raises:
            UnsupportedError: the family has no decoder, or the tokenizer lacks what starts it.
        """
        architecture = self.traits.architecture
        if architecture == "encoder" or HEAD not in self.traits.heads:
            raise UnsupportedError(
                f"prefix_lm needs a decoder or an encoder-decoder, this family is a mere {architecture}"
            )
        # A row with a prefix of its own is not packed.
        self.supports_packing = self._is_encoder_decoder and self.traits.supports_packing
        if self._is_encoder_decoder:
            decoder_start_id(self.traits, self.specials)

    @property
    def _is_encoder_decoder(self) -> bool:
        return self.traits.architecture == "encoder-decoder"

    def build(self, feature: Feature, rng: np.random.Generator) -> Example:
        """Cut the window; of a single token the end alone is predicted."""
        tokens = feature.sequences[0]
        cut = int(rng.integers(1, len(tokens))) if len(tokens) > 1 else 1
        if not self._is_encoder_decoder:
            return Example(feature.record, (self._build_row(tokens, cut),))
        source, target = (
            add_special_tokens(self.specials, (part,))[0] for part in (tokens[:cut], tokens[cut:])
        )
        target_mask = np.ones(len(target), bool)
        if self.options.masked_only:
            target_mask = text_mask(len(target), self.specials)
        row = build_source_target_row(self.traits, self.specials, source, target, target_mask)
        return Example(feature.record, (row,))

    @classmethod
    def ngram_contexts(
        cls, feature: Feature, example: Example, specials: SpecialTokens
    ) -> tuple[IntArray, IntArray]:
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

    def _build_row(self, tokens: IntArray, prefix_length: int) -> Row:
        """Prefix and rest in one row; the last place of the prefix says the first token of the rest."""
        before = np.array(self.specials.single[0], np.int64)
        prefix = len(before) + prefix_length
        targets = tokens[prefix_length:]
        if self.specials.eos_id is not None and not self.options.masked_only:
            targets = np.append(targets, self.specials.eos_id)
        positions = np.arange(len(targets), dtype=np.int64) + prefix - 1
        return Row(np.concatenate([before, tokens]), {HEAD: positions}, {HEAD: targets}, prefix_length=prefix)
