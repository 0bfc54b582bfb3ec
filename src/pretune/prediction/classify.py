"""Records through a network with a sentence head: batches of similar length, windows gathered by record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from pretune.data.order import validation_rng
from pretune.objectives.classification import HEAD, Objective
from pretune.tasks.classification import Task
from pretune.text.tokenizer import Tokenizer
from pretune.types import Prediction, Record

BATCH_TOKENS = 8192


@torch.inference_mode()
def classify(
    network: nn.Module, task: Task, objective: Objective, tokenizer: Tokenizer, records: Sequence[Record]
) -> list[Prediction]:
    """One prediction a record, in the order of the records."""
    unlabelled = [
        Record({k: v for k, v in r.fields.items() if k != "label"}, r.path, r.line) for r in records
    ]
    features = [f for i, r in enumerate(unlabelled) for f in task.encode(r, i, tokenizer)]
    if not features:
        return []
    lengths = np.array([[len(s) for s in f.sequences] + [0] * (2 - len(f.sequences)) for f in features])
    bounds = lengths.sum(1) + objective.frame_length(int((lengths > 0).any(0).sum()) or 1)
    order = np.argsort(-bounds, kind="stable")  # the longest first: it says how many fit
    was_training = network.training
    network.eval()
    logits: list[list[np.ndarray[tuple[int], np.dtype[np.float32]]]] = [[] for _ in records]
    start = 0
    while start < len(order):
        size = max(1, BATCH_TOKENS // int(bounds[order[start]]))
        chosen = [features[i] for i in order[start : start + size]]
        examples = [objective.build(f, validation_rng(f.record)) for f in chosen]
        outputs = network(objective.collate([[e] for e in examples]), heads=(HEAD,))
        for feature, row in zip(chosen, outputs.logits[HEAD].float().cpu().numpy(), strict=True):
            logits[feature.record].append(row)
        start += size
    network.train(was_training)
    return [task.decode(i, np.stack(rows)) for i, rows in enumerate(logits)]
