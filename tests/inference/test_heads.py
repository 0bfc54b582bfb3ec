"""A task's head over rows that several texts share: what it says of one does not depend on the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.inference.conftest import WORDS, word_piece

from pretune.model.model import Model
from pretune.text.tokenizer import Tokenizer
from pretune.types import Prediction, Record

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "modernbert": SIZES | {"classifier_pooling": "mean"},
    "gpt2": SIZES,
    "xlnet": SIZES,
    "t5": SIZES,
}


def records() -> list[Record]:
    """Short texts of very different lengths."""
    random, words = np.random.default_rng(0), [word for word in WORDS if word.isalpha() and word.isascii()]
    texts = [" ".join(random.choice(words, size)) for size in random.integers(1, 24, 40)]
    return [Record({"text": text}, "here", number) for number, text in enumerate(texts)]


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_in_one_row_are_told_apart(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.create(
        family, FAMILIES[family], Tokenizer(word_piece()), "classification", max_length=64, seed=0,
        labels=("a", "b", "c"),
    )  # fmt: skip
    model.metadata["task"] = "classification"
    torch.manual_seed(0)
    with torch.no_grad():  # first values are so small that every answer would be the same
        for parameter in model.network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    grids: list[tuple[int, ...]] = []
    forward = model.network.forward

    def watched(batch: Any, *args: Any, **kwargs: Any) -> Any:
        grids.append(tuple(batch.tokens.shape))
        return forward(batch, *args, **kwargs)

    monkeypatch.setattr(model.network, "forward", watched)
    together = model.predict(records())
    assert sum(rows for rows, _ in grids) < len(records()), "some share a row"
    alone = [model.predict([record])[0] for record in records()]
    of_a = [shares(prediction)["a"] for prediction in alone]
    assert max(of_a) - min(of_a) > 0.01, "or any answer would do"
    for one, other in zip(together, alone, strict=True):
        assert shares(one) == pytest.approx(shares(other), abs=1e-5)


def shares(prediction: Prediction) -> dict[str, float]:
    """The chance of each label."""
    assert prediction.confidence is not None
    return {prediction.value: prediction.confidence, **dict(prediction.alternatives)}
