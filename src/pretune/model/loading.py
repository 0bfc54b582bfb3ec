"""A model folder read into what a model is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pretune.checkpoint import hub, weights
from pretune.config import build
from pretune.data.fingerprints import Fingerprints
from pretune.errors import CheckpointError
from pretune.generation.defaults import Defaults
from pretune.model.folder import model_folder, own_head, own_labels, read_about, read_config, task_of, verify
from pretune.model.making import check_fit, random_network, start_of
from pretune.model.uses import CLASSIFIERS
from pretune.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a folder holds, under the names that `Model` gives it."""

    family: ModuleType
    config: Any
    network: nn.Module
    tokenizer: Tokenizer
    head: str
    labels: tuple[str, ...]
    about: Mapping[str, Any]
    fingerprints: Fingerprints | None
    path: Path
    untrained: tuple[str, ...]
    defaults: Defaults


def load(
    path: Path, head: str | None, labels: tuple[str, ...] | None, settings: Mapping[str, Any], seed: int
) -> Loaded:
    """See `Model.load`."""
    folder = model_folder(path)
    verify(folder)
    config_json = hub.read_config(folder)
    module, config = read_config(folder, config_json)
    config = build(module.Config, config.model_dump() | dict(settings), where="model")
    own, known = own_head(module, config_json), own_labels(folder, config_json)
    wanted = head or own or next(h for h in module.TRAITS.heads if h != "classification")
    chosen = (known if labels is None else labels) if wanted == "classification" else ()
    about = read_about(folder, config)
    kept = about.pop("task", None)
    task = kept if kept and own == wanted else task_of(wanted, config_json)
    about |= {} if task is None else {"task": task}
    tokenizer = Tokenizer.load(folder, config.vocab_size)
    if tokenizer.vocabulary_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {tokenizer.vocabulary_size:,} tokens, its network only "
            f"{config.vocab_size:,} (vocab_size in config.json): they do not belong together"
        )
    tensors = hub.read_tensors(folder)
    if own == wanted and chosen != known:  # its classes mean nothing here
        tensors = {k: v for k, v in tensors.items() if k.split(".")[0] not in CLASSIFIERS}
    check_fit(folder, module, config, wanted, chosen, tensors)
    network = random_network(module, config, wanted, chosen, seed)
    missing = weights.load_into(network, tensors, module.WEIGHTS)
    if missing and own == wanted and chosen == known:
        raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")
    return Loaded(
        module, config, network.eval(), tokenizer, wanted, chosen, about, Fingerprints.load(folder), folder,
        tuple(missing), Defaults.load(folder, config_json, tokenizer.specials, start_of(module, tokenizer)),
    )  # fmt: skip
