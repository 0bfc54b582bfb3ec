"""Continued pretraining: what is taken from a checkpoint, and what may not be changed with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretune.errors import ConfigError
from pretune.model.folder import FolderInfo, read_folder_info
from pretune.model.model import Model
from pretune.objectives import parse_objective
from pretune.registry import find
from pretune.runtime.progress import Reporter
from pretune.text.tokenizer import Tokenizer
from pretune.training.settings import TrainingSettings

LEARNING_RATE = 2e-4
"""A fifth of what random weights begin with, so that the model keeps what it knows. A small GPT-2 that went
on for 100 steps on text of another kind gained 0.34 nats there and lost 0.08 on its first text; at 1e-3 it
gained 0.76 and lost 0.40."""


def settings_from_checkpoint(values: Mapping[str, Any], *, max_length: int) -> dict[str, Any]:
    """Settings with ``start_from``, completed by what its folder says.

    Args:
        max_length: of a window, where none is given and the model reads as much.

    Raises:
        CheckpointError: no model there, or a damaged one.
        ConfigError: a setting that would make it another model.
    """
    start = read_folder_info(str(values["start_from"]))
    fixed = {"family": start.family, "vocabulary_size": start.config.vocab_size}
    _check_fixed_settings(values, start, fixed)
    longest = values.get("max_length")
    if longest is None:
        longest = min(max_length, start.max_length)
    if isinstance(longest, int) and longest > start.max_length:
        raise ConfigError(
            f"pretrain: max_length = {longest}: the model in {start.folder} reads {start.max_length} tokens "
            "at most; give that or less"
        )
    return {
        **values,
        **fixed,
        "start_from": str(values["start_from"]),
        "tokenizer": None,
        "max_length": longest,
        "objective": values.get("objective") or (None if values.get("mixture") else _start_objective(start)),
        "training": _training_values(values.get("training")),
    }


def load_start_model(
    folder: str, heads: tuple[str, ...], seed: int, reporter: Reporter
) -> tuple[Model, tuple[str, ...]]:
    """The model to go on with, and the heads that the folder lacks: they begin anew, and that is said."""
    model = Model.load(folder, head="+".join(heads), seed=seed)
    if model.dropped_head:
        reporter.say(f"  {folder}: {model.dropped_head}")
    new = tuple(sorted({name.split(".")[1] for name in model.untrained}))
    if new:
        reporter.say(
            f"  mind: {folder} has no (or only a part of a) {' and '.join(new)} head: it begins with random "
            "values, so the loss before training says little"
        )
    model.untrained, model.path = (), None  # it is trained now, and this is no longer the model in the folder
    model.metadata = {"max_length": model.max_length}  # nor what that was fine-tuned for
    return model, new


def start_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer that a model goes on with: its own."""
    return Tokenizer.load(read_folder_info(folder).folder)


def _check_fixed_settings(values: Mapping[str, Any], start: FolderInfo, fixed: Mapping[str, Any]) -> None:
    own = {**fixed, "tokenizer": None}
    requested = {key: values.get(key) for key in own if values.get(key) is not None}
    if "family" in requested:
        requested["family"] = find("families", str(requested["family"])).__name__.rpartition(".")[2]
    for key, value in dict(values.get("model") or {}).items():
        own[f"model.{key}"], requested[f"model.{key}"] = getattr(start.config, key, None), value
    for key, value in requested.items():
        if value != own[key]:
            current = "its own" if own[key] is None else repr(own[key])
            raise ConfigError(
                f"pretrain: {key} = {value!r}: start_from goes on with the model in {start.folder} as it is, "
                f"{key} {current}; leave {key} out, or leave start_from out to begin a new model"
            )


def _start_objective(start: FolderInfo) -> str | None:
    """What it was pretrained by, if that is pretraining; None: what its family usually is."""
    family = find("families", start.family)
    if start.head is None or not all(family.HEADS[head].is_pretrained for head in start.head.split("+")):
        return None
    spec = parse_objective(start.objective or start.head)
    return spec.name if spec.is_supported_by(family.TRAITS) else None


def _training_values(user_training: Any) -> Any:
    """The training settings, with the learning rate of a model that knows something already."""
    if isinstance(user_training, TrainingSettings):
        return user_training
    training = dict(user_training or {})
    optimizer = training.get("optimizer") or {}
    if isinstance(optimizer, Mapping):
        training["optimizer"] = {"learning_rate": LEARNING_RATE, **optimizer}
    return training
