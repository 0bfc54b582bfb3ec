"""A running average of the weights (Polyak & Juditsky 1992), which often scores better than they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from pretune.errors import CheckpointError
from pretune.training.sharding import shard_like


class EMA:
    """An exponential moving average of a network's trainable weights, kept beside them.

    The decay at update n is at most (1 + n) / (10 + n), so that the random weights at the beginning of a
    short run are forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._weights = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._weights.items()}
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update ``step``, counted from 1."""
        new = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, weight in self._weights.items():
            self._average[name].lerp_(weight, new)

    @contextmanager
    def swapped_in(self) -> Iterator[dict[str, torch.Tensor]]:
        """Within, the network holds the average; yields the weights as trained, which come back."""
        trained = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.copy_to_network()
        try:
            yield trained
        finally:
            self._load_weights(trained)

    def copy_to_network(self) -> None:
        """Put the average into the network for good."""
        self._load_weights(self._average)

    def restore(self, trained: Mapping[str, torch.Tensor]) -> None:
        """Of a network that holds the average: take it over, and put the weights as trained into the network.

        Raises:
            CheckpointError: they belong to another network.
        """
        shapes = {name: weight.shape for name, weight in self._weights.items()}
        if {name: weight.shape for name, weight in trained.items()} != shapes:
            raise CheckpointError("training_weights.safetensors: holds the weights of another network")
        self._average = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._load_weights(trained)

    @torch.no_grad()
    def _load_weights(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(shard_like(values[name], weight))
