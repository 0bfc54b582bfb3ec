"""Making a network: what must fit together is compared before memory is taken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pretune.checkpoint import weights
from pretune.errors import CheckpointError, ConfigError, UsageError, quote
from pretune.nn.heads import Head
from pretune.nn.init import meta_device
from pretune.runtime import device
from pretune.text.tokenizer import Tokenizer
from pretune.types import OutputSpec, Traits, decoder_start_id

DEPTH_KEYS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
"""Settings that count layers, of which each has tensors of its own."""
BUILD_ERRORS = (
    RuntimeError,
    ArithmeticError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
)
"""What torch, and the classes of transformers, raise where they cannot make a network of some settings."""


def init_network(family: ModuleType, config: Any, head: str, outputs: OutputSpec, seed: int) -> nn.Module:
    """A network with random weights that depend on the seed alone, and leave torch's generator as it was.

    Raises:
        ConfigError: settings of which no network can be made.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build_network(family, config, head, outputs)


def _build_network(family: ModuleType, config: Any, head: str, outputs: OutputSpec) -> nn.Module:
    try:
        network: nn.Module = family.Network(config, heads=head.split("+"), num_labels=outputs.size)
    except BUILD_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"model: no network has these sizes and settings: {reason}") from None
    return network


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The classes of a head, of which no two may have one name.

    Raises:
        UsageError: two have, or one has none.
    """
    counts = Counter(labels)
    wrong = [label for label, count in counts.items() if count > 1 or not label]
    if wrong:
        times = counts[wrong[0]]
        raise UsageError(f"labels: {quote(wrong[0])} stands there {times} times; give each class a name")
    return tuple(labels)


def is_labeled(table: Mapping[str, Head], heads: str) -> bool:
    """Are outputs of one of these heads, joined by ``+``, classes of the training data?"""
    return any(table[name].is_labeled for name in heads.split("+") if name in table)


def head_outputs(table: Mapping[str, Head], heads: str, outputs: OutputSpec) -> OutputSpec:
    """What is asked of the outputs, as far as it is for these heads: only a labelled one has labels.

    Raises:
        UsageError: two labels are the same, or one is empty.
    """
    if not is_labeled(table, heads):
        return replace(outputs, labels=(), num_outputs=None)
    check_labels(outputs.labels)
    return outputs


def find_decoder_start_id(family: ModuleType, tokenizer: Tokenizer) -> int | None:
    """What the decoder of an encoder-decoder begins with; None for another family.

    Raises:
        UnsupportedError: the tokenizer has no such token.
    """
    traits: Traits = family.TRAITS
    return decoder_start_id(traits, tokenizer.specials) if traits.architecture == "encoder-decoder" else None


def meta_network(family: ModuleType, config: Any, head: str, outputs: OutputSpec) -> nn.Module:
    """A network without values, which takes no memory: its shapes can be judged before it is made.

    Raises:
        ConfigError: sizes that no tensor can have.
    """
    with meta_device():
        return _build_network(family, config, head, outputs)


def check_sizes(config: Any, tokenizer: Tokenizer, max_length: int) -> None:
    """The network has an embedding for each token, a position for each place, and takes the tokenizer.

    Raises:
        ConfigError: it does not.
    """
    if config.vocab_size < tokenizer.vocabulary_size:
        raise ConfigError(
            f"model: vocab_size = {config.vocab_size}: the tokenizer has {tokenizer.vocabulary_size} tokens; "
            "leave vocab_size out, or give that or more"
        )
    if config.max_position_embeddings < max_length:
        raise ConfigError(
            f"model: max_position_embeddings = {config.max_position_embeddings}: max_length is {max_length}; "
            "leave max_position_embeddings out, or give that or more"
        )
    fixed = getattr(config, "tokenizer_class", None)
    if fixed is not None:
        raise ConfigError(
            f"model: model_type = {config.model_type}: stock transformers would read its tokenizer as a "
            f"{fixed}, which has other special tokens; begin with another model_type (a model that is there "
            "can be read and tuned)"
        )
    if getattr(config, "pad_token_id", tokenizer.specials.pad_id) != tokenizer.specials.pad_id:
        raise ConfigError(
            f"model: pad_token_id = {config.pad_token_id}: the tokenizer's is {tokenizer.specials.pad_id}; "
            "leave pad_token_id out"
        )


def check_memory(family: ModuleType, config: Any, head: str, outputs: OutputSpec) -> None:
    """The network can be trained in this machine's memory.

    Raises:
        ConfigError: it cannot.
    """
    count = sum(p.numel() for p in meta_network(family, config, head, outputs).parameters())
    needed, available = 16 * count, device.total_memory()  # weights, gradients, AdamW's two moments, in fp32
    if available and needed > available:
        raise ConfigError(
            f"model: {count:,} parameters take {needed / 2**30:,.0f} GiB to train, this machine has "
            f"{available / 2**30:,.0f}; give a smaller hidden_size, num_hidden_layers or vocabulary"
        )


def check_weights_fit(
    folder: Path,
    family: ModuleType,
    config: Any,
    head: str,
    outputs: OutputSpec,
    tensors: Mapping[str, torch.Tensor],
    operations: Sequence[weights.Operation],
) -> None:
    """The sizes in config.json are those of the weights, which are bounded by their file.

    Raises:
        CheckpointError: they are not.
    """
    for name, value in config.model_dump().items():
        if name in DEPTH_KEYS and isinstance(value, int) and value > len(tensors):
            raise CheckpointError(
                f"{folder}: config.json says {name} = {value}, the weights are only {len(tensors)} tensors"
            )
    try:
        network = meta_network(family, config, head, outputs)
        needed, available = 4 * sum(p.numel() for p in network.parameters()), device.total_memory()
        if available and needed > available:
            raise CheckpointError(
                f"its network takes {needed / 2**30:,.0f} GiB in float32, this machine has "
                f"{available / 2**30:,.0f}; use a machine with more, or a smaller model"
            )
        weights.load_weights(network, dict(tensors), operations)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{folder}: {error}") from None
