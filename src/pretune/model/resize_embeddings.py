"""A model whose vocabulary grows: new tokens start from the mean of the pieces that wrote them before."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pretune.config import build_settings
from pretune.model.build import init_network
from pretune.model.model import Model
from pretune.nn.init import meta_device
from pretune.text.vocabulary_extension import ExtendedTokenizer
from pretune.types import OutputSpec


def resize_token_embeddings(model: Model, extended: ExtendedTokenizer) -> Model:
    """The model with the tokens of ``extended``; the logits of the old ones stay what they were.

    Every tensor with a row for each token (embeddings, the head's matrix and bias) gets rows for the new
    ones, each the mean of its pieces' rows. Rows that the network has beyond its tokenizer are used first.
    """
    head = "+".join(model.heads)
    size = max(model.config.vocab_size, extended.tokenizer.vocabulary_size)
    config = build_settings(
        type(model.config), {**model.config.model_dump(), "vocab_size": size}, where="model"
    )
    network = init_network(model.family, config, head, model.outputs, seed=0)
    old, new = model.network.state_dict(), network.state_dict()
    by_token = find_vocabulary_tensors(model.family, config, head, model.outputs)
    for name, tensor in new.items():
        tensor[: len(old[name])] = old[name]
        if name in by_token:
            init_new_rows(tensor, extended.pieces)
    network.train(model.network.training)
    return Model(
        model.family, config, network, extended.tokenizer, head, outputs=model.outputs,
        metadata=model.metadata, fingerprints=model.fingerprints, untrained=model.untrained,
        generation_config=model.generation_config,
    )  # fmt: skip


def init_new_rows(tensor: torch.Tensor, pieces: Mapping[int, tuple[int, ...]]) -> None:
    """Put the mean of its pieces' rows into the row of each new token; (V, ...)"""
    for id, piece_ids in pieces.items():
        tensor[id] = tensor[list(piece_ids)].mean(0)


def find_vocabulary_tensors(family: ModuleType, config: Any, head: str, outputs: OutputSpec) -> set[str]:
    """Names of the tensors that have a row for each token: those whose shape goes with the vocabulary."""

    def shapes(size: int) -> dict[str, torch.Size]:
        values = {**config.model_dump(), "vocab_size": size}
        with meta_device():
            network: nn.Module = family.Network(
                build_settings(type(config), values, where="model"),
                heads=head.split("+"),
                num_labels=outputs.size,
            )
        return {name: tensor.shape for name, tensor in network.state_dict().items()}

    now, more = shapes(config.vocab_size), shapes(config.vocab_size + 1)
    return {name for name, shape in now.items() if shape != more[name]}
