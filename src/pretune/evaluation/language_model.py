"""The held-out loss of a language model, beside n-gram models scored on exactly the same targets."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from pretune.baselines.ngrams import NgramBaselines
from pretune.config import digest
from pretune.data.order import validation_rng
from pretune.data.packing import pack
from pretune.errors import DataError
from pretune.metrics.cross_entropy import cross_entropy
from pretune.runtime.device import network_device
from pretune.runtime.distributed import World
from pretune.text.tokenizer import Tokenizer
from pretune.types import Batch, Example, Feature, FeatureStore, IntArray, ObjectiveLike, Score, SpecialTokens

ContextFunction = Callable[[Feature, Example, SpecialTokens], tuple[IntArray, IntArray]]
VOCABULARY_HEADS = ("masked_lm", "causal_lm", "permutation_lm")
DEFAULT_ROWS = 32
"""Rows of the grid that are evaluated at once."""


class HeldOutSet:
    """A fixed set of batches: the same texts, and the same masks, at every evaluation and in every run.

    ``objective`` is one of default settings: however a model was trained, 15 % of the places are masked here.
    """

    def __init__(
        self,
        store: FeatureStore,
        objective: ObjectiveLike,
        context_fn: ContextFunction,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        max_length: int,
        every_token: bool,
        packing: bool = True,
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        chosen = _sample_evenly(objective.length_bounds(store.lengths), max_tokens)
        if len(chosen) == 0:
            raise DataError(
                "no held-out text to evaluate on; give validation files or a larger validation_fraction"
            )
        features = [store[i] for i in chosen]
        examples = [objective.build(f, validation_rng(i)) for i, f in zip(chosen, features, strict=True)]
        bounds = objective.length_bounds(store.lengths)[chosen]
        packing = packing and objective.supports_packing
        packed_rows = pack(bounds, max_length) if packing else [[k] for k in range(len(examples))]
        self._rows = [[examples[k] for k in row] for row in packed_rows]
        self.num_tokens = int(bounds.sum())
        """That the network reads for one evaluation, at most."""
        self._objective = objective
        self._batches = self._collate(DEFAULT_ROWS)
        self._rows_per_batch = DEFAULT_ROWS
        pairs = [context_fn(f, e, tokenizer.specials) for f, e in zip(features, examples, strict=True)]
        self._previous = np.concatenate([previous for previous, _ in pairs])  # (N,)
        self._targets = np.concatenate([target for _, target in pairs])  # (N,)
        self.num_targets = len(self._targets)
        self._bytes = int(tokenizer.byte_lengths()[self._targets].sum()) if every_token else None
        self._signature = f"{tokenizer.fingerprint[:12]}|window={max_length}"
        self.fingerprint = digest([self._previous.tolist(), self._targets.tolist()])[:16]
        """Of the targets: runs of one fingerprint are scored on the same tokens of the same text."""
        self.unigram_loss = self.bigram_loss = math.nan
        self._targets_by_head = self._class_targets()

    def measure_baselines(self, ngrams: NgramBaselines) -> None:
        """Score the n-gram models on the same targets."""
        self.unigram_loss = float(ngrams.unigram_nll(self._targets).mean())
        self.bigram_loss = float(ngrams.bigram_nll(self._previous, self._targets).mean())

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, rows_per_batch: int = DEFAULT_ROWS) -> list[Score]:
        """``loss`` in nats per target first, as it decides; ``bits_per_byte`` where all tokens are scored.

        Each rank scores its share of the batches, and all have the same scores. Of a head that chooses among
        classes, its accuracy follows. ``rows_per_batch`` of the grid are read at once.
        """
        if rows_per_batch != self._rows_per_batch:
            self._batches, self._rows_per_batch = self._collate(rows_per_batch), rows_per_batch
        training = network.training
        network.eval()
        nats, correct = 0.0, dict.fromkeys(self._targets_by_head, 0)
        device = network_device(network)
        for batch in self._batches[self.world.rank :: self.world.world_size]:
            batch = batch.to(device)
            outputs = network(batch, heads=tuple(batch.targets), targets=batch.targets)
            nats += sum(float(total) for total in outputs.sums.values())
            for head in correct:
                correct[head] += int((outputs.logits[head].argmax(-1) == batch.targets[head]).sum())
        network.train(training)
        nats = self.world.sum_values({"nats": nats})["nats"]
        correct = self.world.sum_counts(correct)
        scores = cross_entropy(nats, self.num_targets, tokenizer=self._signature, text_bytes=self._bytes)
        return scores + [self._accuracy_score(head, count) for head, count in correct.items()]

    def _collate(self, rows_per_batch: int) -> list[Batch]:
        starts = range(0, len(self._rows), rows_per_batch)
        return [self._objective.collate(self._rows[k : k + rows_per_batch]) for k in starts]

    @property
    def majority_shares(self) -> dict[str, float]:
        """What stands beside an accuracy: the share of the most frequent class, and of how many targets."""
        shares = {
            f"{h}_majority": float(c.bincount().max() / len(c)) for h, c in self._targets_by_head.items()
        }
        return shares | {
            f"{head}_accuracy_n": len(classes) for head, classes in self._targets_by_head.items()
        }

    def _accuracy_score(self, head: str, num_correct: int) -> Score:
        number = len(self._targets_by_head[head])
        return Score(f"{head}_accuracy", num_correct / number, number, f"{head}_accuracy|{self._signature}")

    def _class_targets(self) -> dict[str, torch.Tensor]:
        """The targets of each head that chooses among classes, if it has any."""
        joined = {
            head: torch.cat([batch.targets[head] for batch in self._batches])
            for head in self._batches[0].targets
            if head not in VOCABULARY_HEADS
        }
        return {head: classes for head, classes in joined.items() if len(classes)}


def _sample_evenly(bounds: IntArray, max_tokens: int) -> list[int]:
    """Features evenly spread over the held-out text, of about ``max_tokens`` together."""
    total = int(bounds.sum())
    if total <= max_tokens:
        return list(range(len(bounds)))
    count = max(1, int(len(bounds) * max_tokens / total))
    return sorted({int(i) for i in np.linspace(0, len(bounds) - 1, count)})
