"""One file a task: records, fields, metrics, predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pretune.registry import find, list_names
from pretune.types import OutputSpec

if TYPE_CHECKING:
    from pretune.tasks.base import Task

DEFAULT_TASK = "classification"
"""The task of labelled records where none is named."""


def find_task(name: str) -> type[Task]:
    """The task of a name: the class in its file.

    Raises:
        ConfigError: there is none; names the nearest ones.
    """
    task: type[Task] = find("tasks", name).Task
    return task


def recognise_task(
    head: str, config: Mapping[str, Any], labels: Sequence[str]
) -> tuple[str, OutputSpec] | None:
    """The task that a published folder was fine-tuned for, and its outputs; None: no task of ours."""
    for name in list_names("tasks"):
        outputs = find_task(name).recognise(head, config, labels)
        if outputs is not None:
            return name, outputs
    return None
