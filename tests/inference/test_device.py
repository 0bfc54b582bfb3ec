"""Evaluation, inference and generation hand a network its batches where its weights lie."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pretune.data.corpus.windows import EncodedRecords
from pretune.evaluation.language_model import HeldOutSet
from pretune.families import bert, llama
from pretune.generation.decoder_state import DecoderState, Prompt
from pretune.inference.batching import iter_logits
from pretune.inference.heads import predict_logits
from pretune.objectives import parse_objective
from pretune.types import Batch, Feature, Outputs, SpecialTokens

SPECIALS = SpecialTokens(32, 0, mask_id=3, bos_id=1, eos_id=2, all_ids=(0, 1, 2, 3), single=((1,), (2,)))


class Elsewhere(nn.Module):
    """A network whose weights lie on another device, which a test can have anywhere: ``meta``."""

    def __init__(self, classes: int = 32) -> None:
        super().__init__()
        self.weight, self.classes, self.calls = nn.Parameter(torch.zeros(1, device="meta")), classes, 0

    def forward(
        self, batch: Batch, heads: Any = (), targets: Any = None, loss: Any = None, cache: Any = None
    ) -> Outputs:
        self.calls += 1
        held = [batch.tokens, batch.layout.lengths, *(p for p in batch.positions.values() if p is not None)]
        assert {tensor.device.type for tensor in (*held, *batch.targets.values())} == {"meta"}
        [head] = heads
        positions = batch.positions[head]
        count = batch.tokens.numel() if positions is None else len(positions)
        if targets:
            return Outputs(sums={head: torch.zeros(())})
        return Outputs({head: torch.zeros(count, self.classes)})  # as if they had come back


def evaluate(network: nn.Module) -> None:
    spec = parse_objective("causal_lm")
    store = EncodedRecords([Feature(0, 0, (np.arange(4, 12),))])
    tokenizer: Any = SimpleNamespace(
        specials=SPECIALS, fingerprint="f" * 12, byte_lengths=lambda: np.ones(32, np.int64)
    )
    objective = spec.build_objective(llama.TRAITS, SPECIALS)
    held_out = HeldOutSet(
        store, objective, spec.ngram_contexts, tokenizer, max_tokens=99, max_length=16, every_token=False
    )
    held_out.evaluate(network)


def fill(network: nn.Module) -> None:
    list(iter_logits(network, "masked_lm", [(np.arange(4, 9), np.array([1]))], SPECIALS))


def classify(network: nn.Module) -> None:
    objective = parse_objective("classification").build_objective(bert.TRAITS, SPECIALS)
    predict_logits(network, objective, [Feature(0, 0, (np.arange(4, 9),))])


def generate(network: nn.Module) -> None:
    state = DecoderState(network, [Prompt([1, 5, 6]), Prompt([1])], max_length=16, use_cache=False)
    state.prefill()
    state.append([7, 8])


@pytest.mark.parametrize("work", [evaluate, fill, classify, generate])
def test_batches_go_to_the_device_of_the_network(work: Callable[[nn.Module], None]) -> None:
    network = Elsewhere()
    work(network)
    assert network.calls
