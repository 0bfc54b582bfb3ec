"""Labelled records for training and scoring: held out from each other, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from pretune.data.corpus.token_shards import held_out_mask
from pretune.data.sources.text_hash import text_hash
from pretune.runtime.progress import Reporter
from pretune.types import Record

VALIDATION_SHARE = 0.1


def split_validation(records: list[Record], task: ModuleType) -> tuple[list[Record], list[Record]]:
    """(training, validation) records, split by a hash of the first text, so that its pairs stay together.

    A class whose few records would all be held out stays in training.
    """
    hashes = np.array([text_hash(task.get_texts(r)[0]) for r in records], np.uint64)
    held = held_out_mask(hashes, VALIDATION_SHARE, seed=0)
    train_labels = {
        label for r, out in zip(records, held, strict=True) if not out for label in task.record_labels(r)
    }
    in_validation = [
        out and train_labels.issuperset(task.record_labels(r)) for r, out in zip(records, held, strict=True)
    ]
    return (
        [r for r, out in zip(records, in_validation, strict=True) if not out],
        [r for r, out in zip(records, in_validation, strict=True) if out],
    )


def warn_split_overlap(
    task: ModuleType,
    train: Sequence[Record],
    evaluation_splits: Mapping[str, Sequence[Record]],
    reporter: Reporter,
) -> None:
    """Say how many texts of each part that is scored are training texts, too."""
    train_hashes = {text_hash("".join(task.get_texts(r))) for r in train}
    for name, records in evaluation_splits.items():
        shared = sum(text_hash("".join(task.get_texts(r))) in train_hashes for r in records)
        if shared:
            reporter.say(f"  mind: {shared} of the {len(records)} {name} texts are training texts, too")
