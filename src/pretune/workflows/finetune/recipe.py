"""What fine-tuning uses where nothing is given: by the origin and the size of the model, and by its records.

The values were chosen on sets that no published figure is of: docs/lab-notes.md, "Defaults of fine-tuning",
has the trials, docs/benchmarks.md the comparison with stock's example settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretune.model.folder import FolderInfo
from pretune.tasks import DEFAULT_TASK, find_task

DEFAULT_MAX_LENGTH = 128
"""Tokens of a text that are read: as many as stock's example reads. More take longer, and seldom help."""
PUBLISHED_LEARNING_RATE, PUBLISHED_HIDDEN_SIZE = 1e-4, 384
"""Peak learning rate of a published checkpoint of that width; others in inverse proportion to theirs, which
at 768 is the 5e-5 that stock's example has for all."""
PRETUNE_LEARNING_RATE, PRETUNE_HIDDEN_SIZE = 2e-3, 128
"""The same of a model that pretune pretrained, in minutes or hours: it knows less that could be lost."""
TOKENS_PER_RECORD = 256
"""Tokens that are read of each record over all epochs, about: two epochs of texts cut at
``DEFAULT_MAX_LENGTH``."""
EPOCH_RANGE = (2, 6)
"""The least and the most: short texts are read more often, in the time that stock's padding takes."""
LARGE_BATCH_FROM_RECORDS = 10_000
"""From so many records on a step has ``LARGE_BATCH_EXAMPLES`` of them, else ``SMALL_BATCH_EXAMPLES``: few
records want many steps."""
SMALL_BATCH_EXAMPLES, LARGE_BATCH_EXAMPLES = 8, 16

ADAMW: dict[str, Any] = {"name": "adamw", "betas": (0.9, 0.999), "weight_decay": 0.01}


def training_defaults(start: FolderInfo, *, random_init: bool) -> dict[str, Any]:
    """Settings of training for a model as its folder describes it."""
    own = is_pretune_model(start, random_init=random_init)
    rate, width = (
        (PRETUNE_LEARNING_RATE, PRETUNE_HIDDEN_SIZE)
        if own
        else (PUBLISHED_LEARNING_RATE, PUBLISHED_HIDDEN_SIZE)
    )
    learning_rate = rate * width / start.config.hidden_size
    return {
        "optimizer": {**ADAMW, "learning_rate": float(f"{learning_rate:.2g}")},
        "schedule": {"name": "linear", "warmup": 0.1},
    }


def is_pretune_model(start: FolderInfo, *, random_init: bool) -> bool:
    """Was the model pretrained by pretune, or has it learnt nothing yet?"""
    return start.objective is not None or random_init


def batch_examples(records: int, *, pretune_model: bool) -> int:
    """Records of a step; ``pretune_model``: as :func:`is_pretune_model` has it."""
    return (
        LARGE_BATCH_EXAMPLES if pretune_model or records >= LARGE_BATCH_FROM_RECORDS else SMALL_BATCH_EXAMPLES
    )


def truncation_defaults(start: FolderInfo) -> dict[str, Any]:
    """How much of a text is read: ``DEFAULT_MAX_LENGTH`` tokens, in windows by a model that reads fewer at
    once.
    """
    if start.max_length < DEFAULT_MAX_LENGTH:
        return {"task_options": {"long_texts": "windows"}}
    return {"max_length": DEFAULT_MAX_LENGTH, "task_options": {"long_texts": "longest_first"}}


def epochs(records: int, tokens_per_epoch: float) -> float:
    """How often the records are read, by the ``tokens_per_epoch`` of one epoch; in halves."""
    least, most = EPOCH_RANGE
    return min(most, max(least, round(2 * TOKENS_PER_RECORD * records / max(1.0, tokens_per_epoch)) / 2))


def apply_recipe(user_settings: Mapping[str, Any], start: FolderInfo) -> dict[str, Any]:
    """The settings ``user_settings``, with those of the recipe where there are none."""
    values = dict(user_settings)
    cuts_texts = "long_texts" in find_task(str(values.get("task", DEFAULT_TASK))).options_type.model_fields
    given = "long_texts" in (values.get("task_options") or {})
    if cuts_texts and not given and values.get("max_length") is None:
        chosen = truncation_defaults(start)
        values["task_options"] = chosen.pop("task_options") | dict(values.get("task_options") or {})
        values |= chosen
    defaults = training_defaults(start, random_init=bool(values.get("random_init")))
    training = dict(values.get("training") or {})
    for name in ("optimizer", "schedule"):
        section = dict(training.get(name) or {})
        # What is given of another optimiser or schedule is completed by its own defaults.
        same = section.get("name", defaults[name]["name"]) == defaults[name]["name"]
        training[name] = (defaults[name] if same else {}) | section
    values["training"] = defaults | training
    return values
