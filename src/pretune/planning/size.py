"""How large a model fits a text, this machine and a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """Width, depth and heads of a Transformer."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int

    def to_settings(self) -> dict[str, int]:
        """Under the names that every family gives them."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
        }

    def __str__(self) -> str:
        return f"{self.num_hidden_layers} layers x {self.hidden_size}"


SHAPES = (Shape(128, 2, 2), Shape(192, 3, 3), Shape(256, 4, 4), Shape(384, 6, 6), Shape(512, 8, 8))
"""From what learns within a minute on two cores to what wants hours there; heads of 64 dimensions."""
MIN_TOKENS_PER_PARAMETER = 2.0
"""Tokens that a model must be able to read, for each of its parameters outside the embeddings, to be worth
its size. Far below the 20 of Hoffmann et al. (2022), whose models are a thousand times larger."""
MAX_EPOCHS = 4.0
"""Text that is read more often teaches little that is new (Muennighoff et al. 2023, figure 5)."""


@dataclass(frozen=True, slots=True)
class ShapeTrial:
    """What a shape costs here."""

    shape: Shape
    parameters: int
    """Outside the embeddings."""
    tokens_per_second: float


def choose_shape(trials: Iterable[ShapeTrial], seconds: float, corpus_tokens: int) -> ShapeTrial:
    """The largest of the ``trials``, in growing order, that reads enough text in ``seconds``; else the first.

    The trials are drawn one at a time, and no more once one does not fit: a large one is slow to measure.
    """
    chosen: ShapeTrial | None = None
    for trial in trials:
        read = min(trial.tokens_per_second * seconds, MAX_EPOCHS * corpus_tokens)
        if chosen is not None and read < MIN_TOKENS_PER_PARAMETER * trial.parameters:
            break
        chosen = trial
    assert chosen is not None, "there is a smallest shape"
    return chosen
