"""A model folder read into what a model is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from pretune.checkpoint import hub, weights
from pretune.config import build
from pretune.data.cleaning.fingerprints import Fingerprints
from pretune.errors import CheckpointError
from pretune.generation.config import Defaults
from pretune.model.build import check_fit, distinct, random_network, start_of
from pretune.model.capabilities import CLASSIFIERS, TASK_HEADS
from pretune.model.folder import model_folder, own_head, own_labels, read_about, read_config, task_of, verify
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
    dropped: str


def load(
    path: Path, head: str | None, labels: Sequence[str] | None, settings: Mapping[str, Any], seed: int
) -> Loaded:
    """See `Model.load`."""
    folder = model_folder(path)
    verify(folder)
    config_json = hub.read_config(folder)
    module, config = read_config(folder, config_json)
    config = build(module.Config, config.model_dump() | dict(settings), where="model")
    own = own_head(module, config_json)
    numbered = () if own is None else own_labels(folder, config_json)  # another head may number as it likes
    known = numbered if own == "classification" else ()
    wanted = head or own or next(h for h in module.TRAITS.heads if h != "classification")
    chosen = (known if labels is None else distinct(labels)) if wanted == "classification" else ()
    about = read_about(folder, config)
    kept = about.pop("task", None)
    task = kept if kept and own == wanted else task_of(wanted, config_json, chosen)
    about |= {} if task is None else {"task": task}
    tokenizer = Tokenizer.load(folder, config.vocab_size)
    if tokenizer.vocabulary_size > config.vocab_size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {tokenizer.vocabulary_size:,} tokens, its network only "
            f"{config.vocab_size:,} (vocab_size in config.json): they do not belong together"
        )
    frame = tokenizer.specials.single[0] + tokenizer.specials.single[1]
    if getattr(config, "pad_token_id", None) in frame:
        raise CheckpointError(
            f"{folder}: its tokenizer puts the padding token {config.pad_token_id} around each text, which "
            "has no position of its own in this architecture; fetch tokenizer.json again"
        )
    tensors = hub.read_tensors(folder)
    surplus = _other_heads(tensors, own, kept=own == wanted and chosen == known)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in surplus}
    check_fit(folder, module, config, wanted, chosen, tensors)
    network = random_network(module, config, wanted, chosen, seed)
    missing = weights.load_into(network, tensors, module.WEIGHTS)
    if missing and own == wanted and chosen == known:
        raise CheckpointError(f"{folder}: has no weights for {', '.join(missing[:5])}")
    specials, start = tokenizer.specials, start_of(module, tokenizer)
    writes = "causal_lm" in wanted.split("+")  # who writes nothing does not fail by how it would
    defaults = Defaults.load(folder, config_json, specials, start) if writes else Defaults.of(specials, start)
    return Loaded(
        module, config, network.eval(), tokenizer, wanted, chosen, about, Fingerprints.load(folder), folder,
        tuple(missing), defaults, _said(surplus, config_json, known),
    )  # fmt: skip


def _other_heads(tensors: Mapping[str, Tensor], own: str | None, *, kept: bool) -> list[str]:
    """The tensors of a head that is not the one asked for: its classes, tags or answers mean nothing here.

    Args:
        own: the head of the folder, where the family has it.
        kept: it is the one asked for, with the same classes.
    """
    if kept:
        return []
    heads = CLASSIFIERS if own == "classification" else TASK_HEADS
    return sorted(name for name in tensors if name.split(".")[0] in heads)


def _said(surplus: Sequence[str], config: Mapping[str, Any], labels: Sequence[str]) -> str:
    if not surplus:
        return ""
    architectures = config.get("architectures")
    named = (
        str(architectures[0])[:80] if isinstance(architectures, list) and architectures else "other weights"
    )
    classes = (
        f" with the classes {', '.join(labels[:5])}{' ...' if len(labels) > 5 else ''}" if labels else ""
    )
    more = f" and {len(surplus) - 3} more" if len(surplus) > 3 else ""
    return f"the head of {named}{classes} is left out ({', '.join(surplus[:3])}{more})"
