"""Labelled records for training and scoring: held out from each other, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pretune.data.corpus.token_shards import held_out_mask
from pretune.data.sources.text_hash import text_hash
from pretune.runtime.progress import Reporter
from pretune.tasks.base import Task
from pretune.types import Record

VALIDATION_SHARE = 0.1


def split_validation(records: list[Record], task: Task) -> tuple[list[Record], list[Record]]:
    """(training, validation) records, split by a hash of the first text, so that its pairs stay together.

    A class whose few records would all be held out stays in training.
    """
    hashes = np.array([text_hash(task.texts(r)[0]) for r in records], np.uint64)
    held = held_out_mask(hashes, VALIDATION_SHARE, seed=0)
    train_labels = {
        label
        for r, out in zip(records, held, strict=True)
        if not out
        for label in task.labels_of(task.reference(r))
    }
    in_validation = [
        out and train_labels.issuperset(task.labels_of(task.reference(r)))
        for r, out in zip(records, held, strict=True)
    ]
    return (
        [r for r, out in zip(records, in_validation, strict=True) if not out],
        [r for r, out in zip(records, in_validation, strict=True) if out],
    )


def known_labels(task: Task, records: Sequence[Record]) -> tuple[str, ...]:
    """The labels of labelled records, each once."""
    return tuple(dict.fromkeys(label for r in records for label in task.labels_of(task.reference(r))))


def warn_split_overlap(
    task: Task,
    train: Sequence[Record],
    evaluation_splits: Mapping[str, Sequence[Record]],
    reporter: Reporter,
) -> None:
    """Say how many texts of each part that is scored are training texts, too."""
    train_hashes = {text_hash("".join(task.texts(r))) for r in train}
    for name, records in evaluation_splits.items():
        shared = sum(text_hash("".join(task.texts(r))) in train_hashes for r in records)
        if shared:
            reporter.say(f"  mind: {shared} of the {len(records)} {name} texts are training texts, too")
