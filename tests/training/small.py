"""A training run so small that a test can repeat it many times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pretune.data.windows import EncodedRecords
from pretune.model import Model
from pretune.objectives import causal_lm, classification, masked_lm
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import train_byte_bpe
from pretune.training.length import parse_length
from pretune.training.progress import Silent
from pretune.training.run import Run
from pretune.training.settings import TrainingSettings
from pretune.training.steps import StepBatches
from pretune.training.trainer import Outcome, Trainer
from pretune.types import Feature, Score

WORDS = ["the", "king", "sent", "word", "to", "city", "人民", "法院", "应当", "依法", "审理", "案件"]
MAX_LENGTH = 24
DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "llama": {"attention_dropout": 0.1},
}
OBJECTIVES: dict[str, Any] = {
    "masked_lm": masked_lm,
    "causal_lm": causal_lm,
    "classification": classification,
}


def tokenizer(kind: str) -> Tokenizer:
    texts = [" ".join(WORDS)] * 20
    return train_byte_bpe(texts, 300).with_frame("start" if kind == "causal_lm" else "cls_sep", segments=True)


def features(kind: str, count: int = 40) -> EncodedRecords:
    """Texts of uneven length, so that rows are packed and the last window is partial."""
    draw = np.random.default_rng(3)
    reader = tokenizer(kind)
    found = []
    for number in range(count):
        text = " ".join(draw.choice(WORDS, draw.integers(2, 5)))
        ids = reader.encode(text).ids[: MAX_LENGTH - 2]
        found.append(Feature(number, 0, (ids,), {"label": int(draw.integers(2))}))
    return EncodedRecords(found)


def trainer(
    folder: Path, kind: str, *, family: str, dropout: bool = True, steps: int = 12, **settings: Any
) -> Trainer:
    head = OBJECTIVES[kind].HEAD
    reader = tokenizer(kind)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Model.create(
        family, shape | (DROPOUT[family] if dropout else {}), reader, head,
        max_length=MAX_LENGTH, seed=1, labels=("a", "b") if head == "classification" else (),
    )  # fmt: skip
    objective = OBJECTIVES[kind].Objective(model.family.TRAITS, reader.specials)
    chosen = TrainingSettings(**({"batch_tokens": 100, "micro_batch": 2, "evaluations": 4} | settings))
    store = features(kind)
    batches = StepBatches(store, objective, model.family.TRAITS, chosen, MAX_LENGTH)

    def evaluate(network: nn.Module, step: int) -> list[Score]:
        # Not the loss that is trained on, so that the best checkpoint is not simply the last.
        total = sum(float(p.detach().sum()) for p in network.parameters())
        return [Score("wandering", abs(total) % 1.0, 1, "test")]

    run = Run.open(folder, chosen)
    return Trainer(
        keeper=model, objective=objective, batches=batches, evaluate=evaluate, settings=chosen,
        length=parse_length(f"{steps} steps"), run=run, reporter=Silent(),
    )  # fmt: skip


def state(made: Trainer) -> dict[str, torch.Tensor]:
    """Weights and optimiser state as they stand."""
    weights = {f"weight/{n}": p.detach().clone() for n, p in made.network.named_parameters()}
    return weights | made.optimizer.state_tensors()


def finish(made: Trainer) -> Outcome:
    return made.train()
